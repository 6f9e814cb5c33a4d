"""The loss of a pass: what `compile` takes, a function, or the model's own, in any precision."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfamp.precision import layer_internals
from tfamp.training.own_step import own_methods
from tfamp.training.step import Loss, Step

# What a mismatch of dtypes raises.
_MISMATCH = (TypeError, ValueError, tf.errors.InvalidArgumentError)


def step_of(model: keras.Model, loss: Any) -> Step:
    """The training step of a model with a loss.

    Args:
        model: A built model.
        loss: What `compile` takes; a function of (targets, outputs) that returns a scalar or one
            value per example; None for what the model was compiled with, or its own
            `compute_loss`. `model.losses` are added.

    Raises:
        ValueError: There is no loss.
    """
    if loss is None:
        if own_methods(model, ["compute_loss"]):
            return Step(model)
        # A copy: to build the model's own, in some precision, would change it.
        compiled = layer_internals.fresh_compiled_loss(model)
        if compiled is None and not model.losses:
            raise ValueError(
                f"loss=None, but {model.name!r} was compiled without one and adds none itself. "
                "Give a loss: what compile() takes, or a function of (targets, outputs)."
            )
        return Step(model, compiled and _in_32_bits(compiled))
    if _is_function_of_the_users(loss):
        return Step(model, _in_32_bits(_of_function(loss)))
    return Step(model, _in_32_bits(layer_internals.compiled_like(loss, None, model)))


def _is_function_of_the_users(loss: Any) -> bool:
    # Keras's own functions mean under `compile` what their names do.
    module = getattr(loss, "__module__", None) or ""
    is_keras = module.split(".")[0] == "keras"
    is_loss = isinstance(loss, keras.losses.Loss)
    return callable(loss) and not inspect.isclass(loss) and not is_keras and not is_loss


def _in_32_bits(loss: Loss) -> Loss:
    # As an optimizer does before it scales a loss: in 16 bits the scale itself may overflow.
    def widened(targets: Any, outputs: Any, sample_weight: Any = None) -> tf.Tensor:
        value = tf.convert_to_tensor(loss(targets, outputs, sample_weight))
        return value if value.dtype == tf.float64 else tf.cast(value, tf.float32)

    return widened


def _of_function(function: Callable[[Any, Any], Any]) -> Loss:
    def loss(targets: Any, outputs: Any, sample_weight: Any = None) -> tf.Tensor:
        value = tf.convert_to_tensor(function(targets, outputs))
        if sample_weight is not None:
            weights = tf.cast(sample_weight, value.dtype)
            if value.shape.rank == 0:
                raise ValueError(
                    "The batch has a sample_weight, but loss(targets, outputs) returns one number "
                    "for all examples. Return one per example, or leave the weights out."
                )
            value = value * tf.reshape(weights, [-1, *[1] * (value.shape.rank - 1)])
        return tf.reduce_mean(value)

    return loss


def loss_of(step: Step, batch: Any, outputs: Any, training: bool) -> tf.Tensor:
    """As `Step.loss_of`, where outputs may be float64 and the loss is written for float32.

    First the targets follow the outputs, then they stay, as is right for a loss that casts its
    outputs itself, and last it gets float32 outputs.
    """
    if not any(_is_of(tf.float64, output) for output in keras.tree.flatten(outputs)):
        return step.loss_of(batch, outputs, training)
    inputs, *others = batch
    tried: list[Exception] = []
    for others_in, outputs_in in ((tf.float64, None), (None, None), (None, tf.float32)):
        cast = (inputs, *_floats_in(others_in, others))
        try:
            return step.loss_of(cast, _floats_in(outputs_in, outputs), training)
        except _MISMATCH as error:
            tried.append(error)
    raise tried[-1]


def _floats_in(dtype: tf.DType | None, values: Any) -> Any:
    if dtype is None:
        return values
    return keras.tree.map_structure(
        lambda value: tf.cast(value, dtype) if _is_float(value) else value, values
    )


def _is_float(value: Any) -> bool:
    return tf.is_tensor(value) and value.dtype.is_floating


def _is_of(dtype: tf.DType, value: Any) -> bool:
    return tf.is_tensor(value) and value.dtype == dtype
