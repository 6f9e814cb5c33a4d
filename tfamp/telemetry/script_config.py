"""What a user's script runs, under the names that the trainer's config.json has."""

from __future__ import annotations

import collections
import re
import sys
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfamp.precision import computes, keras_internals
from tfamp.precision import policy as policy_lib
from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.run import provenance
from tfamp.run.config import HPARAMS, SCALE_SETTINGS
from tfamp.run.run_config import RunConfig
from tfamp.telemetry import memory
from tfamp.telemetry.keras_readers import learning_rate

Optimizers = Mapping[str, keras.optimizers.Optimizer]


def record(
    config: Mapping[str, Any], model: keras.Model | None, optimizers: Optimizers
) -> RunConfig:
    """All of config.json."""
    several = {name: _optimizer(each) for name, each in optimizers.items() if name}
    return RunConfig(
        config=dict(config),
        command_line=tuple(sys.argv),
        versions=provenance.versions(),
        git_revision=provenance.git_revision(),
        device=memory.described_device(),
        tf32=policy_lib.computes_in_tf32(),
        trainable_parameters=_trainable_parameters(model),
        optimizers=several or None,
    )


def config(model: keras.Model | None, optimizers: Optimizers) -> dict[str, Any]:
    """What can be known of a run from its model and optimizers; None is not known."""
    known = {
        "policy": _policy(model),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "float32_layers": [],
        "model": _model_name(model),
        "dataset": None,
        "seed": keras_internals.global_seed(),
        "jit_compile": model.jit_compile if model is not None else None,
        "steps_per_execution": getattr(model, "steps_per_execution", 1),
        "loss_scale": "none",
    }
    if len(optimizers) == 1:
        known |= _optimizer(*optimizers.values())
    elif any(map(_is_scaler, optimizers.values())):
        known["loss_scale"] = "dynamic"
    return known


def hparams(config: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What TensorBoard's HParams tab compares runs by, as far as it is known."""
    return {name: config[name] for name in HPARAMS if config.get(name) is not None}


def phase(config: Mapping[str, Any], model: keras.Model | None) -> dict[str, Any]:
    """What a later phase of a run may change."""
    names = ("optimizer", "learning_rate", "loss_scale", "epochs")
    parameters = {"trainable_parameters": _trainable_parameters(model)}
    return {name: config[name] for name in names if name in config} | parameters


def _policy(model: keras.Model | None) -> str:
    if model is None:
        return keras.config.dtype_policy().name
    if model.dtype_policy.name != "float32":
        return model.dtype_policy.name
    # A file keeps the policies of the layers, not that of the model around them.
    weighted = [layer for layer in policy_lib.all_layers(model) if layer.weights]
    names = collections.Counter(layer.dtype_policy.name for layer in weighted)
    return names.most_common(1)[0][0] if names else "float32"


def _optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    described = {
        "optimizer": type(inner).__name__.lower(),
        "learning_rate": _learning_rate(inner),
        "accumulation_steps": inner.gradient_accumulation_steps or 1,
        "loss_scale": "none",
    }
    if isinstance(optimizer, RecordedOptimizer):
        described["accumulation_steps"] = optimizer.accumulation_steps
        if isinstance(optimizer, LossScaleOptimizer):
            described |= _scale(optimizer)
    elif optimizer is not inner:
        described |= {
            "loss_scale": "dynamic",
            "initial_loss_scale": float(optimizer.initial_scale),
            "loss_scale_growth_steps": int(optimizer.dynamic_growth_steps),
        }
    return described


def _is_scaler(optimizer: keras.optimizers.Optimizer) -> bool:
    is_wrapper = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return is_wrapper and getattr(optimizer, "is_scaling", True)


def _scale(optimizer: LossScaleOptimizer) -> dict[str, Any]:
    rules = optimizer.rules
    if not rules.dynamic:
        return {
            "loss_scale": f"{rules.initial_scale:.9g}",
            "max_skipped_in_a_row": rules.max_skipped_in_a_row,
        }
    return {
        "loss_scale": "dynamic",
        **{name: getattr(rules, rule) for name, rule in SCALE_SETTINGS.items()},
    }


def _learning_rate(inner: keras.optimizers.Optimizer) -> float | None:
    # A schedule has no one value: the rows have that of each step.
    is_schedule = keras_internals.has_schedule(inner)
    # A float32 on the device: 0.001 is 0.0010000000474974513 there.
    return None if is_schedule else float(f"{learning_rate(inner):.7g}")


def _trainable_parameters(model: keras.Model | None) -> int | None:
    return None if model is None else computes.trainable_parameters(model)


def _model_name(model: keras.Model | None) -> str | None:
    if model is None:
        return None
    # Keras counts the models of a process that have no name of their own: `sequential_1`.
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(model).__name__)
    is_counted = re.fullmatch(rf"{re.escape(snake.lower())}_\d+", model.name)
    return snake.lower() if is_counted else model.name
