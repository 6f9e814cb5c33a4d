"""A skipped step leaves moving averages as they were, too.

BatchNormalization takes in the batch's mean and variance on the way forward, long before the
optimizer sees that a gradient is not finite. One batch with a NaN makes Keras's averages NaN for
ever, while the weights beside them are saved from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfamp.precision import replicas
from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.precision.meters import metered

TrainStep = Callable[..., Any]


class KeptAverages:
    """A meter that puts a model's non-trainable float variables back if the step was a skip.

    Whole numbers, such as a dropout's seed or a counter of calls, go on. With
    `gradient_accumulation_steps` a skip discards a whole group: what its last microbatch did is
    undone, and what any other did that made a variable non-finite.

    Args:
        model: A model, which is built when it takes its first step.
        optimizer: The optimizer that takes the steps.
    """

    def __init__(self, model: keras.Model, optimizer: LossScaleOptimizer) -> None:
        self._model = model
        self._optimizer = optimizer

    def before(self) -> list[tf.Tensor]:
        """The values before a step."""
        return [tf.convert_to_tensor(variable.value) for variable in self._variables()]

    def after(self, before: Sequence[tf.Tensor]) -> None:
        """Puts the values back if the step that was taken since was a skip."""
        if not before:
            return
        is_lost = self._optimizer.has_skipped()
        if self._optimizer.accumulates:
            now = [tf.reduce_all(tf.math.is_finite(value)) for value in self.before()]
            is_lost |= ~tf.reduce_all(now)
        replicas.cond(is_lost, self._put_back, lambda *before: None, args=before)

    def _variables(self) -> list[keras.Variable]:
        return [v for v in self._model.non_trainable_variables if _is_float(v)]

    def _put_back(self, *before: tf.Tensor) -> None:
        for variable, value in zip(self._variables(), before, strict=True):
            variable.assign(value)


def keeping_averages(step: TrainStep, model: keras.Model) -> TrainStep:
    """Wraps a training step so that it leaves moving averages alone where it is a skip.

    Args:
        step: What takes a step, in a replica context; with the model's optimizer.
        model: A compiled model.

    Returns:
        Such a step; the same one where nothing is ever skipped.
    """
    optimizer = model.optimizer
    if not isinstance(optimizer, LossScaleOptimizer):
        return step
    optimizer.announcements.keeps_averages = True
    return metered(step, [KeptAverages(model, optimizer)])


@contextlib.contextmanager
def kept_moving_averages(model: keras.Model) -> Iterator[None]:
    """Lets `model.fit` leave moving averages alone at a step that loss scaling skips.

    The model's own `train_step` runs, between a look at the averages and the putting back. Does
    nothing where the model's optimizer is no `tfamp.LossScaleOptimizer`. tfamp's trainer has this
    around its `fit`.

    >>> with tfamp.kept_moving_averages(model):
    ...     model.fit(inputs, targets)

    Args:
        model: A compiled model.
    """
    optimizer = model.optimizer
    if not isinstance(optimizer, LossScaleOptimizer):
        yield
        return
    # Keras compiles `train_step` into `train_function`, once.
    model.train_step, model.train_function = keeping_averages(model.train_step, model), None
    try:
        yield
    finally:
        optimizer.announcements.keeps_averages = False
        del model.train_step
        model.train_function = None


def _is_float(variable: keras.Variable) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)
