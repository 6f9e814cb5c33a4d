"""The gradients of one step, each with the variable that it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tfamp.precision import replicas
from tfamp.precision.gradients import Gradient, densified


class StepGradients(NamedTuple):
    """Gradients and variables in the same order.

    Attributes:
        values: Float tensors, IndexedSlices (each row once) or None.
        overwrites: Whether each is its variable's next value, and not a gradient at all.
        variables: What they are of; empty where that is not known yet.
    """

    values: list[Gradient]
    overwrites: list[bool]
    variables: list[keras.Variable]

    def each(self, change: Callable[[tf.Tensor], tf.Tensor]) -> StepGradients:
        """Changes the values of every gradient that there is; next values stay as they are."""
        return self._replace(
            values=[
                value if value is None or overwrites else changed(value, change)
                for value, overwrites in zip(self.values, self.overwrites, strict=True)
            ]
        )

    def over_replicas(self) -> StepGradients:
        """Their sums, float32 and the same on every replica."""
        if not replicas.several():
            return self
        return self.over_replicas_with(tf.zeros([1]))[0]

    def over_replicas_with(self, scalars: tf.Tensor) -> tuple[StepGradients, tf.Tensor]:
        """Their sums, and those of a float32 vector, in one reduction."""
        sums, scalars = replicas.summed(self.values, scalars)
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for i, (value, overwrites) in enumerate(zip(sums, self.overwrites, strict=True)):
            # A next value is no share of a sum.
            if value is not None and overwrites:
                sums[i] = value / num_replicas
        return self._replace(values=sums), scalars


def step_gradients(
    gradients: Sequence[Gradient], variables: Sequence[keras.Variable]
) -> StepGradients:
    """Puts gradients and variables together.

    Args:
        gradients: As a tape gives them.
        variables: One for each, or none where they are not known yet.

    Raises:
        ValueError: They do not go together, there is no gradient, or this is no replica context.
    """
    if tf.distribute.in_cross_replica_context():
        raise ValueError(
            "apply() was called in cross-replica context. Call it in a replica context, inside "
            "strategy.run()."
        )
    if all(gradient is None for gradient in gradients):
        raise ValueError(
            f"apply() got no gradient for any of {len(gradients)} variables: all are None. Compute "
            "the loss from these variables, inside the tape's `with`."
        )
    if variables and len(variables) != len(gradients):
        raise ValueError(
            f"{len(gradients)} gradients came for {len(variables)} variables. Pass the variables "
            "that they are of, one for each."
        )
    overwrites = [getattr(v, "overwrite_with_gradient", False) for v in variables]
    return StepGradients(
        [densified(gradient) for gradient in gradients],
        overwrites or [False] * len(gradients),
        list(variables),
    )


def changed(gradient: Gradient, change: Callable[[tf.Tensor], tf.Tensor]) -> Gradient:
    """A gradient whose values were changed, of IndexedSlices those of the rows that are there."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return change(gradient)
