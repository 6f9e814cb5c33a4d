"""The loss scale as a state machine: two pure rules, and the state on the device that they move."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision.collapse import LossScaleCollapse
from tfamp.run.scale_rules import ScaleRules

# Skips in a row, their losses finite, after which the scale may climb back quickly. Fewer are
# what a scaler that looks for its level makes: 2^15 to 2^8.
SKIPS_BEFORE_RECOVERY = 8


class ScaleState(NamedTuple):
    """What moves: counters as int64 scalars, scales as float32 scalars.

    Attributes:
        scale: The loss scale.
        growth_counter: Clean steps since the scale last moved.
        attempted: Steps taken, clean or skipped.
        skipped_total: Skips in all.
        skipped_in_a_row: Skips since the last clean step.
        skipped_non_finite_loss: Skips in all whose own loss was not finite.
        hysteresis_left: Skips until the next one lowers the scale, 0 once it does.
        overflows_in_a_row: Skips since the last clean step whose loss was finite.
        last_clean_scale: The scale of the last clean step; before one, the initial scale.
        recovery_scale: The scale that a climb leads back to; 0 where there is none.
    """

    scale: tf.Tensor
    growth_counter: tf.Tensor
    attempted: tf.Tensor
    skipped_total: tf.Tensor
    skipped_in_a_row: tf.Tensor
    skipped_non_finite_loss: tf.Tensor
    hysteresis_left: tf.Tensor
    overflows_in_a_row: tf.Tensor
    last_clean_scale: tf.Tensor
    recovery_scale: tf.Tensor


def after_clean_step(rules: ScaleRules, state: ScaleState) -> ScaleState:
    """The state after a step that was applied."""
    counter = state.growth_counter + 1
    state = state._replace(
        attempted=state.attempted + 1,
        skipped_in_a_row=_int(0),
        growth_counter=counter,
    )
    if not rules.dynamic:
        return state
    needed, ceiling = _int(rules.dynamic_growth_steps), _float(rules.max_scale)
    climbs = state.recovery_scale > state.scale
    if rules.recovery_steps is not None:
        quick = _int(min(rules.dynamic_growth_steps, rules.recovery_steps))
        needed = tf.where(climbs, quick, needed)
        ceiling = tf.where(climbs, state.recovery_scale, ceiling)
    grows = counter >= needed
    grown = tf.minimum(_times(state.scale, rules.growth_factor), ceiling)
    state = state._replace(
        scale=tf.where(grows, grown, state.scale),
        growth_counter=tf.where(grows, _int(0), counter),
        hysteresis_left=tf.where(grows, _int(rules.hysteresis), state.hysteresis_left),
        last_clean_scale=state.scale,
        overflows_in_a_row=_int(0),
    )
    if rules.recovery_steps is None:
        return state
    return state._replace(
        recovery_scale=tf.where(state.recovery_scale > state.scale, state.recovery_scale, 0.0)
    )


def after_skipped_step(
    rules: ScaleRules, state: ScaleState, is_loss_finite: tf.Tensor
) -> tuple[ScaleState, tf.Tensor]:
    """The state after a step that was skipped, and whether that is a collapse.

    Args:
        rules: How the scale moves.
        state: The state before the step.
        is_loss_finite: bool scalar. A loss that is NaN or infinite itself is no fault of the
            scale, and leaves all that moves it alone.

    Returns:
        state: The state after it.
        collapses: bool scalar.
    """
    scale, left = state.scale, state.hysteresis_left
    state = state._replace(
        attempted=state.attempted + 1,
        skipped_total=state.skipped_total + 1,
        skipped_in_a_row=state.skipped_in_a_row + 1,
        skipped_non_finite_loss=state.skipped_non_finite_loss
        + tf.where(is_loss_finite, _int(0), _int(1)),
        growth_counter=tf.where(is_loss_finite, _int(0), state.growth_counter),
    )
    collapses = tf.constant(False)
    if rules.max_skipped_in_a_row is not None:
        collapses = state.skipped_in_a_row > rules.max_skipped_in_a_row
    if not rules.dynamic:
        return state, collapses
    left = tf.where(is_loss_finite, tf.maximum(left - 1, 0), left)
    lower = tf.maximum(_times(scale, rules.backoff_factor), _float(rules.min_scale))
    overflows = state.overflows_in_a_row + tf.where(is_loss_finite, _int(1), _int(0))
    # A skip during a climb is the first of its run and ends it.
    is_long = overflows >= SKIPS_BEFORE_RECOVERY
    recovery = tf.where(is_long, state.last_clean_scale, 0.0)
    state = state._replace(
        scale=tf.where(is_loss_finite & tf.equal(left, 0), lower, scale),
        hysteresis_left=left,
        overflows_in_a_row=overflows,
        recovery_scale=tf.where(is_loss_finite, recovery, state.recovery_scale),
    )
    return state, collapses | (is_loss_finite & (scale <= _float(rules.min_scale)))


class ScaleMachine:
    """The state of a loss scale on the device, and the last collapse until the host takes it.

    Args:
        rules: How the scale moves.
        add_variable: The optimizer's method, so that the state is saved with the optimizer.
    """

    def __init__(self, rules: ScaleRules, add_variable: Callable[..., keras.Variable]) -> None:
        def saved(name: str, start: float = 0, dtype: str = "int64") -> keras.Variable:
            return add_variable(
                shape=(),
                initializer=keras.initializers.Constant(start),
                dtype=dtype,
                # Every replica takes the same transition and writes its own copy.
                aggregation="none",
                name=name,
            )

        self.rules = rules
        self.announces = True
        # Whether moving averages are put back at a skip: between the two they may be NaN.
        self.keeps_averages = False
        # The paths of the trained variables, for whoever is told of a collapse.
        self.weights: tuple[str, ...] = ()
        # Weak references to the models they are of; None until the first step looks for them.
        self.models: list[weakref.ref[keras.Model]] | None = None
        # Keras's names and order for the first two. A checkpoint knows the variables by position:
        # what joined later is in `late`, which the optimizer takes up behind all others.
        self.growth_counter = saved("step_counter")
        self.scale = saved("dynamic_scale", rules.initial_scale, "float32")
        self.attempted = saved("steps_attempted")
        self.skipped_total = saved("skipped_total")
        self.skipped_in_a_row = saved("skipped_in_a_row")
        self.hysteresis_left = saved("hysteresis_left", rules.hysteresis)
        self.collapsed_at = saved("collapsed_at")
        self.culprit = saved("culprit", -1)
        self.culprit_has_nan = saved("culprit_has_nan")
        self.late = {
            "skipped_non_finite_loss": device_variable("skipped_non_finite_loss", 0, "int64"),
            "overflows_in_a_row": device_variable("overflows_in_a_row", 0, "int64"),
            "last_clean_scale": device_variable("last_clean_scale", rules.initial_scale),
            "recovery_scale": device_variable("recovery_scale", 0.0),
            # Whether `scale_loss` has seen a loss that is not finite since the last update.
            "noted_non_finite_loss": device_variable("noted_non_finite_loss", 0, "int64"),
        }
        # An event of this process and no state to be saved: a file of a run that had collapsed
        # starts clean. Whether one waits for the host, and what it was at that step: the scale,
        # the skips in a row, those in all, and whether the loss was finite.
        self.collapse = device_variable("collapse", np.zeros(5), "float64")

    def state(self) -> ScaleState:
        """The state now, as tensors."""
        return ScaleState(**{name: self._variable(name).value for name in ScaleState._fields})

    def step_clean(self) -> None:
        """After an applied step: counts, and grows the scale when it is time."""
        before = self.state()
        self._take(before, after_clean_step(self.rules, before))

    def step_skipped(
        self, is_loss_finite: tf.Tensor, culprit: tf.Tensor, has_nan: tf.Tensor
    ) -> None:
        """After a skipped step: counts, lowers the scale, and notes a collapse.

        Args:
            is_loss_finite: bool scalar, whether the step's own loss was finite.
            culprit: int64 scalar, the index of the variable whose gradient was not finite.
            has_nan: bool scalar, whether that gradient held a NaN.
        """
        before = self.state()
        after, collapses = after_skipped_step(self.rules, before, is_loss_finite)
        self._take(before, after)
        # The first collapse stays until the host takes it.
        is_first = collapses & tf.equal(self.collapse.value[0], 0.0)
        told = [
            1.0,
            before.scale,
            after.skipped_in_a_row,
            after.skipped_total,
            is_loss_finite,
        ]
        for variable, value in (
            (self.collapse, tf.stack([tf.cast(each, tf.float64) for each in told])),
            (self.collapsed_at, after.attempted),
            (self.culprit, culprit),
            (self.culprit_has_nan, tf.cast(has_nan, tf.int64)),
        ):
            variable.assign(tf.where(is_first, value, variable.value))

    # What the host asks; each answer waits for the device.

    def read(self, name: str) -> int:
        """A counter's value."""
        # Through the tf.Variable: under a strategy a Keras variable has no __int__.
        return int(self._variable(name).value.numpy())

    def read_collapsed_at(self) -> int | None:
        """The step of a collapse that nobody has taken yet, if there is one."""
        return self.read("collapsed_at") if self.collapse.value.numpy()[0] else None

    def read_collapse(self) -> LossScaleCollapse | None:
        """The collapse that nobody has taken yet, if there is one."""
        step = self.read_collapsed_at()
        if step is None:
            return None
        _, scale, in_a_row, in_all, is_loss_finite = self.collapse.value.numpy().tolist()
        skipped_total = self.read("skipped_total")
        return LossScaleCollapse(
            step=step,
            read_at=self.read("attempted"),
            scale=scale,
            min_scale=self.rules.min_scale if self.rules.dynamic else None,
            skipped_in_a_row=int(in_a_row),
            skipped_total=skipped_total,
            skipped_since=skipped_total - int(in_all),
            scale_now=float(self.scale.value.numpy()),
            skipped_non_finite_loss=self.read("skipped_non_finite_loss"),
            variable=self.weights[self.read("culprit")],
            has_nan=bool(self.read("culprit_has_nan")),
            is_loss_finite=bool(is_loss_finite),
        )

    def take_collapse(self) -> LossScaleCollapse | None:
        """Hands over the collapse that nobody has taken yet, and forgets it."""
        collapse = self.read_collapse()
        if collapse is not None:
            self.forget_collapse()
        return collapse

    def forget_collapse(self) -> None:
        """Ends a collapse: it was taken, or belongs to a state that is no more."""
        self.collapse.assign(np.zeros(5))
        self.collapsed_at.assign(0)

    def _variable(self, name: str) -> keras.Variable:
        return self.late[name] if name in self.late else getattr(self, name)

    def _take(self, before: ScaleState, after: ScaleState) -> None:
        for name, old, new in zip(ScaleState._fields, before, after, strict=True):
            if new is not old:
                self._variable(name).assign(new)


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


def _int(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def _float(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float32)


def _times(scale: tf.Tensor, factor: float) -> tf.Tensor:
    # Rounded once, as torch's GradScaler does: factors such as 0.8 are no float32 numbers.
    return tf.cast(tf.cast(scale, tf.float64) * factor, tf.float32)
