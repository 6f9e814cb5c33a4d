"""The state of a recorded optimizer on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision.scale_machine import ScaleState


class StateVariables:
    """The variables of a recorded optimizer's own, and what the host may read of them.

    An optimizer without a loss scale has the same ones: its scale rests at 1, and only `attempted`
    moves. So histories, files and checkpoints have one form, and a run can go on from those of
    either kind. Every replica takes the same steps and writes its own copies.

    Args:
        add_variable: The optimizer's method, so that the state is saved with the optimizer.
        scale: The first loss scale.
        hysteresis: Skips, at the start, until one lowers the scale.
    """

    def __init__(
        self, add_variable: Callable[..., keras.Variable], scale: float, hysteresis: int
    ) -> None:
        def saved(name: str, start: float = 0, dtype: str = "int64") -> keras.Variable:
            initializer = keras.initializers.Constant(start)
            return add_variable(
                shape=(), initializer=initializer, dtype=dtype, aggregation="none", name=name
            )

        # A checkpoint knows variables by their position: none may move, go or come in between. The
        # first two have Keras's names and order.
        self.growth_counter = saved("step_counter")
        self.scale = saved("dynamic_scale", scale, "float32")
        self.attempted = saved("steps_attempted")
        self.skipped_total = saved("skipped_total")
        self.skipped_in_a_row = saved("skipped_in_a_row")
        self.hysteresis_left = saved("hysteresis_left", hysteresis)
        self.collapsed_at = saved("collapsed_at")
        self.culprit = saved("culprit", -1)
        self.culprit_has_nan = saved("culprit_has_nan")
        self.microbatch = saved("microbatch")
        self.loss = saved("last_loss", dtype="float32")
        self.grad_norm = saved("grad_norm", dtype="float32")
        # These joined later, behind the accumulators: the optimizer takes them up at `build`.
        self.skipped_non_finite_loss = device_variable("skipped_non_finite_loss", 0, "int64")
        self.overflows_in_a_row = device_variable("overflows_in_a_row", 0, "int64")
        self.last_clean_scale = device_variable("last_clean_scale", scale)
        self.recovery_scale = device_variable("recovery_scale", 0.0)
        # Whether `scale_loss` has seen a loss that is not finite since the last update.
        self.noted_non_finite_loss = device_variable("noted_non_finite_loss", 0, "int64")
        self.latest = (
            self.skipped_non_finite_loss,
            self.overflows_in_a_row,
            self.last_clean_scale,
            self.recovery_scale,
            self.noted_non_finite_loss,
        )

    def scale_state(self) -> ScaleState:
        """The state of the loss scale now, as tensors."""
        variables = (getattr(self, name) for name in ScaleState._fields)
        return ScaleState(*(tf.convert_to_tensor(variable.value) for variable in variables))

    def become(self, after: ScaleState, before: ScaleState) -> None:
        """Takes on the state after a step; what is the same tensor as before is not written."""
        for name, new, old in zip(ScaleState._fields, after, before, strict=True):
            if new is not old:
                getattr(self, name).assign(new)

    def read(self, name: str) -> float:
        """A variable's value, for the host; waits for the device."""
        # Through the tf.Variable: under a strategy a Keras variable has no __float__.
        return getattr(self, name).value.numpy().item()


def reading(name: str, kind: Callable[[float], Any], doc: str) -> Any:
    """A property of an optimizer that reads one of its `StateVariables`; waits for the device."""
    return property(lambda optimizer: kind(optimizer._state.read(name)), doc=doc)


def device_variable(name: str, start: float | np.ndarray, dtype: str = "float32") -> keras.Variable:
    """A variable that every replica writes for itself and that no optimizer saves by itself."""
    return keras.Variable(
        np.asarray(start, dtype),
        dtype=dtype,
        trainable=False,
        autocast=False,
        aggregation="none",
        name=name,
    )
