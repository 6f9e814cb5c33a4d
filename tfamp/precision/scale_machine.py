"""The loss scale as a state machine on the device: when it grows, falls, and gives up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from tfamp.run import bounds


@dataclasses.dataclass(frozen=True)
class ScaleRules:
    """How a loss scale moves; see `LossScaleOptimizer` for each field.

    Raises:
        ValueError: A value is out of range or contradicts another.
    """

    initial_scale: float
    dynamic_growth_steps: int
    dynamic: bool
    growth_factor: float
    backoff_factor: float
    min_scale: float
    max_scale: float
    hysteresis: int
    max_skipped_in_a_row: int | None

    def __post_init__(self) -> None:
        limit = self.max_skipped_in_a_row
        rules = {
            "initial_scale": (
                bounds.SMALLEST_LOSS_SCALE <= self.initial_scale < bounds.LOSS_SCALE_LIMIT,
                "2^-126 or more, a normal float32, and below 2^127",
            ),
            "dynamic_growth_steps": (self.dynamic_growth_steps >= 1, "1 or more"),
            "growth_factor": (1 < self.growth_factor < math.inf, "above 1 and finite"),
            "backoff_factor": (0 < self.backoff_factor < 1, "between 0 and 1"),
            "min_scale": (
                self.min_scale >= bounds.SMALLEST_LOSS_SCALE,
                "2^-126 or more, a normal float32",
            ),
            "max_scale": (self.max_scale < bounds.LOSS_SCALE_LIMIT, "below 2^127"),
            "hysteresis": (self.hysteresis >= 1, "1 or more"),
            "max_skipped_in_a_row": (limit is None or limit >= 1, "1 or more, or None"),
        }
        for name, (is_right, rule) in rules.items():
            if not is_right:
                raise ValueError(f"{name}={getattr(self, name)}: it must be {rule}.")
        if self.dynamic and not self.min_scale <= self.initial_scale <= self.max_scale:
            raise ValueError(
                f"initial_scale={self.initial_scale:g} lies outside [min_scale="
                f"{self.min_scale:g}, max_scale={self.max_scale:g}]. Move one of the three."
            )


class ScaleMachine:
    """The state of a loss scale and its two transitions, `step_clean` and `step_skipped`.

    Args:
        rules: How the scale moves.
        add_variable: The optimizer's method, so that the state is saved with the optimizer.
    """

    def __init__(self, rules: ScaleRules, add_variable: Callable[..., keras.Variable]) -> None:
        def variable(name: str, start: float = 0, dtype: str = "int64") -> keras.Variable:
            return add_variable(
                shape=(),
                initializer=keras.initializers.Constant(start),
                dtype=dtype,
                # Every replica takes the same transition and writes its own copy.
                aggregation="none",
                name=name,
            )

        self.rules = rules
        # Keras's names and order for the first two.
        self.growth_counter = variable("step_counter")
        self.scale = variable("dynamic_scale", rules.initial_scale, "float32")
        self.attempted = variable("steps_attempted")
        self.skipped_total = variable("skipped_total")
        self.skipped_in_a_row = variable("skipped_in_a_row")
        self.hysteresis_left = variable("hysteresis_left", rules.hysteresis)
        # 0 while all is well, else the number of the attempted step that was the collapse.
        self.collapsed_at = variable("collapsed_at")
        self.culprit = variable("culprit", -1)
        self.culprit_has_nan = variable("culprit_has_nan")

    def is_alive(self) -> tf.Tensor:
        """Whether scaling has not collapsed, a bool scalar."""
        return tf.equal(self.collapsed_at.value, 0)

    def step_clean(self) -> None:
        """After an applied step: counts, and grows the scale when it is time."""
        self.skipped_in_a_row.assign(0)
        if not self.rules.dynamic:
            self.growth_counter.assign_add(1)
            return
        clean = self.growth_counter.value + 1
        scale, left = tf.identity(self.scale.value), self.hysteresis_left.value
        grows = clean >= self.rules.dynamic_growth_steps
        grown = tf.minimum(_times(scale, self.rules.growth_factor), self.rules.max_scale)
        self.growth_counter.assign(tf.where(grows, tf.zeros_like(clean), clean))
        self.scale.assign(tf.where(grows, grown, scale))
        full = tf.constant(self.rules.hysteresis, tf.int64)
        self.hysteresis_left.assign(tf.where(grows, full, left))

    def step_skipped(self, culprit: tf.Tensor, has_nan: tf.Tensor) -> None:
        """After a skipped step: counts, lowers the scale, and notes a collapse.

        After a collapse only the skips are counted; what is known of it stays.

        Args:
            culprit: int64 scalar, the index of the variable whose gradient was not finite.
            has_nan: bool scalar, whether that gradient held a NaN.
        """
        rules, alive = self.rules, self.is_alive()
        scale = tf.identity(self.scale.value)
        in_a_row = self.skipped_in_a_row.value + 1
        self.skipped_in_a_row.assign(in_a_row)
        self.skipped_total.assign_add(1)
        self.growth_counter.assign(0)
        collapses = tf.constant(False)
        if rules.dynamic:
            collapses |= scale <= rules.min_scale
            left = tf.maximum(self.hysteresis_left.value - 1, 0)
            self.hysteresis_left.assign(left)
            lower = tf.maximum(_times(scale, rules.backoff_factor), rules.min_scale)
            self.scale.assign(tf.where(alive & tf.equal(left, 0), lower, scale))
        if rules.max_skipped_in_a_row is not None:
            collapses |= in_a_row > rules.max_skipped_in_a_row
        for variable, value in (
            (self.culprit, culprit),
            (self.culprit_has_nan, tf.cast(has_nan, tf.int64)),
        ):
            variable.assign(tf.where(alive, value, variable.value))
        at = tf.where(collapses, self.attempted.value, tf.constant(0, tf.int64))
        self.collapsed_at.assign(tf.where(alive, at, self.collapsed_at.value))


def _times(scale: tf.Tensor, factor: float) -> tf.Tensor:
    # Rounded once, as torch's GradScaler does: factors such as 0.8 are no float32 numbers.
    return tf.cast(tf.cast(scale, tf.float64) * factor, tf.float32)
