"""A model that trains in a way of its own: what that means for the loop and the loss scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from tfamp.precision.policy import float16_layers
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.run.config import Config
from tfamp.run.errors import InputError, setting

# What `fit` leaves to the model, and the custom loop does in its own way.
_TRAINING_METHODS = (
    "fit",
    "make_train_function",
    "train_step",
    "compute_loss",
    "compute_metrics",
)


def own_methods(model: keras.Model, names: Iterable[str] = _TRAINING_METHODS) -> list[str]:
    """Which of these methods the model's class, or the object itself, has of its own."""
    return [
        name
        for name in names
        if name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name)
    ]


def check_loop(config: Config, model: keras.Model) -> None:
    """Refuses the custom loop for a model whose own training it would pass over.

    Raises:
        InputError: `config.loop` is custom and the model trains in a way of its own.
    """
    own = own_methods(model) if config.loop == "custom" else []
    if own:
        raise InputError(
            f"{setting('loop', 'custom')} with {setting('model', config.model)}, whose class "
            f"{type(model).__name__} has its own {' and '.join(own)}: the custom loop takes "
            f"tfamp's training step, not the class's. Set {setting('loop', 'fit')}."
        )


def calls_scale_loss(config: Config, model: keras.Model, batch: tuple[tf.TypeSpec, ...]) -> bool:
    """Whether a training step of `fit` has the loss scaled.

    Keras's own step does. One of the user's is traced once to find out: where it hands the
    optimizer gradients of the loss as it is, dividing them by a scale would undo the training.

    Args:
        config: A resolved config, for the message.
        model: A compiled model with a `LossScaleOptimizer`.
        batch: What `train_step` gets, as specs.

    Raises:
        InputError: The step leaves the run's optimizer alone.
    """
    if not own_methods(model, ["train_step"]):
        return True
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    called = _calls_in_a_trace(model, optimizer, batch)
    if "apply" not in called:
        raise InputError(
            f"{setting('model', config.model)}: its train_step never calls "
            "self.optimizer.apply(gradients, variables). self.optimizer is the one that "
            f"{setting('optimizer')}, {setting('learning_rate')} and their like describe, and what "
            "is logged of a step is read from it. Update the weights with it, or leave train_step "
            "out."
        )
    return "scale_loss" in called


def unscaled(config: Config) -> Config:
    """What to compile a model with whose `train_step` has nothing scaled.

    Raises:
        InputError: The user asked for a loss scale.
    """
    if config.scale_settings:
        name = config.scale_settings[0]
        raise InputError(
            f"{setting(name, getattr(config, name))}, but the train_step of {config.model} never "
            "calls self.optimizer.scale_loss(loss): nothing would be scaled. Take the gradient of "
            f"what that returns, or leave {setting(name)} out."
        )
    return dataclasses.replace(config, loss_scale="none")


def is_unscaled(config: Config, model: keras.Model) -> bool:
    """Whether float16 of a built run is left unscaled by its own `train_step`, not by a flag."""
    return (
        config.loss_scale != "none"
        and not model.optimizer.is_scaling
        and bool(float16_layers(model))
    )


def _calls_in_a_trace(
    model: keras.Model, optimizer: RecordedOptimizer, batch: tuple[tf.TypeSpec, ...]
) -> set[str]:
    called: set[str] = set()

    def noting(name: str) -> Callable[..., Any]:
        method = getattr(optimizer, name)

        def noted(*arguments: Any, **keywords: Any) -> Any:
            called.add(name)
            return method(*arguments, **keywords)

        return noted

    for name in ("apply", "scale_loss"):
        setattr(optimizer, name, noting(name))
    try:
        # As `fit` does it, and only traced: no weight moves.
        tf.function(
            tf.autograph.experimental.do_not_convert(
                lambda *data: model.distribute_strategy.run(model.train_step, args=(data,))
            )
        ).get_concrete_function(*batch)
    finally:
        for name in ("apply", "scale_loss"):
            delattr(optimizer, name)
    return called
