"""The loss scale as a state machine: one pure rule, in which nothing is read and nothing written.

The optimizer keeps the state on the device (`StateVariables`) and takes one step of the rule in
each of its own. The class docstring of `LossScaleOptimizer` says in words what the rule does.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfamp.run.scale_rules import ScaleRules

# Overflows in a row after which the scale may climb back quickly. Fewer are what a scaler that
# looks for its level makes: 2^15 to 2^8.
OVERFLOWS_BEFORE_RECOVERY = 8


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


def after_step(
    rules: ScaleRules, state: ScaleState, is_finite: tf.Tensor, is_loss_finite: tf.Tensor
) -> ScaleState:
    """The state after a step.

    Args:
        rules: How the scale moves.
        state: The state before the step.
        is_finite: bool scalar, whether every gradient is finite: the step is clean, else a skip.
        is_loss_finite: bool scalar, whether the step's own loss is. A skip with a loss that is NaN
            or infinite says nothing about the scale, and leaves all that moves it alone.

    Returns:
        The state after it.
    """
    overflows = ~is_finite & is_loss_finite
    state = state._replace(
        attempted=state.attempted + 1,
        skipped_total=state.skipped_total + _one_if(~is_finite),
        skipped_in_a_row=tf.where(is_finite, _int(0), state.skipped_in_a_row + 1),
        skipped_non_finite_loss=state.skipped_non_finite_loss
        + _one_if(~is_finite & ~is_loss_finite),
        growth_counter=tf.where(overflows, _int(0), state.growth_counter + _one_if(is_finite)),
    )
    if not rules.dynamic:
        return state

    overflows_in_a_row = tf.where(is_finite, _int(0), state.overflows_in_a_row + _one_if(overflows))
    steps_to_grow, ceiling = _int(rules.dynamic_growth_steps), _float(rules.max_scale)
    recovery_scale = state.recovery_scale
    if rules.recovery_steps is not None:
        climbs = recovery_scale > state.scale
        quick = _int(min(rules.dynamic_growth_steps, rules.recovery_steps))
        steps_to_grow = tf.where(climbs, quick, steps_to_grow)
        ceiling = tf.where(climbs, recovery_scale, ceiling)
        # An overflow during a climb is the first of its run, and ends the climb.
        is_long = overflows_in_a_row >= OVERFLOWS_BEFORE_RECOVERY
        goal = tf.where(is_long, state.last_clean_scale, 0.0)
        recovery_scale = tf.where(overflows, goal, recovery_scale)
        recovery_scale = tf.where(is_finite & ~climbs, 0.0, recovery_scale)

    grows = is_finite & (state.growth_counter >= steps_to_grow)
    grown = tf.minimum(_times(state.scale, rules.growth_factor), ceiling)
    hysteresis_left = tf.maximum(state.hysteresis_left - _one_if(overflows), 0)
    falls = overflows & tf.equal(hysteresis_left, 0)
    fallen = tf.maximum(_times(state.scale, rules.backoff_factor), _float(rules.min_scale))
    return state._replace(
        scale=tf.where(grows, grown, tf.where(falls, fallen, state.scale)),
        growth_counter=tf.where(grows, _int(0), state.growth_counter),
        hysteresis_left=tf.where(grows, _int(rules.hysteresis), hysteresis_left),
        overflows_in_a_row=overflows_in_a_row,
        last_clean_scale=tf.where(is_finite, state.scale, state.last_clean_scale),
        recovery_scale=recovery_scale,
    )


def is_collapse(
    rules: ScaleRules, before: ScaleState, after: ScaleState, is_loss_finite: tf.Tensor
) -> tf.Tensor:
    """Whether a skip is a collapse: no scale, or no patience, is left.

    Args:
        rules: How the scale moves.
        before: The state before the skip.
        after: The state that `after_step` made of it.
        is_loss_finite: bool scalar, as for `after_step`.

    Returns:
        bool scalar.
    """
    collapses = tf.constant(False)
    if rules.max_skipped_in_a_row is not None:
        collapses = after.skipped_in_a_row > rules.max_skipped_in_a_row
    if rules.dynamic:
        collapses |= is_loss_finite & (before.scale <= _float(rules.min_scale))
    return collapses


def _int(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def _float(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float32)


def _one_if(condition: tf.Tensor) -> tf.Tensor:
    return tf.cast(condition, tf.int64)


def _times(scale: tf.Tensor, factor: float) -> tf.Tensor:
    # Rounded once, as torch's GradScaler does: factors such as 0.8 are no float32 numbers.
    return tf.cast(tf.cast(scale, tf.float64) * factor, tf.float32)
