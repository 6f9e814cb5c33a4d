"""The sum of an accumulation group's gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfamp.precision.gradients import Gradient


class GradientAccumulator:
    """Sums the gradients of a group of microbatches, as they come, in float32.

    Args:
        group_size: Microbatches of a group; with 1 there is nothing to sum.
        microbatch: Counts those of the unfinished group.
    """

    def __init__(self, group_size: int, microbatch: keras.Variable) -> None:
        self.group_size = group_size
        self.sums: tuple[keras.Variable, ...] = ()
        self._microbatch = microbatch

    def build(
        self, add_variable: Callable[..., keras.Variable], trained: Sequence[keras.Variable]
    ) -> None:
        """Makes a sum for each trained variable.

        Args:
            add_variable: The optimizer's method, so that the sums are saved with the optimizer.
            trained: The variables, in the optimizer's order.
        """
        if self.group_size > 1:
            self.sums = tuple(
                add_variable(v.shape, "zeros", "float32", name=f"accumulator_{i}")
                for i, v in enumerate(trained)
            )

    def add(self, gradients: dict[int, Gradient]) -> tf.Tensor:
        """Adds a microbatch.

        Args:
            gradients: Float tensors or IndexedSlices, by the index of their variable.

        Returns:
            bool scalar, whether the group is complete.
        """
        for index, gradient in gradients.items():
            self.sums[index].assign_add(tf.cast(tf.convert_to_tensor(gradient), tf.float32))
        return tf.equal(self._microbatch.assign_add(1), self.group_size)

    def mean(self, index: int) -> tf.Tensor:
        """The mean gradient of a variable over the group."""
        return self.sums[index].value / self.group_size

    def reset(self, indices: Sequence[int]) -> None:
        """Begins a new group, for the variables that had a gradient."""
        self._microbatch.assign(0)
        for index in indices:
            self.sums[index].assign(tf.zeros_like(self.sums[index].value))
