"""The last steps of an optimizer, kept on the device and read in bulk."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfamp.precision.state_variables import device_variable
from tfamp.run import records


def fields() -> tuple[str, ...]:
    """What a step leaves behind, each a float32. Counters are exact up to 2^24."""
    return (*records.figures_of_history(), "is_update")


class StepHistory:
    """A ring buffer of the last `size` steps; the host reads it whenever it likes.

    Writing is one small assignment on the device and nothing on the host, so the exact history
    of each step costs no synchronisation at the step.

    Args:
        size: Steps that are kept, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.fields = fields()
        self.rows = device_variable("history", np.zeros((size, len(self.fields))))
        self.count = device_variable("history_count", 0, "int64")

    def write(self, values: Mapping[str, tf.Tensor | float]) -> None:
        """Appends one step, in a graph or eagerly.

        Args:
            values: Scalars by name; those of `fields()` are kept, NaN where there is none.
        """
        row = tf.stack([tf.cast(values.get(name, np.nan), tf.float32) for name in self.fields])
        position = tf.convert_to_tensor(self.count.value) % self.size
        # One row, in place: `assign` would write the whole buffer at every step.
        self.rows.value.scatter_update(tf.IndexedSlices(row[tf.newaxis], position[tf.newaxis]))
        # Only once the values are there: a step that breaks off leaves no entry.
        with tf.control_dependencies([row]):
            self.count.assign_add(1)

    def written(self) -> tf.Tensor:
        """int64 scalar: steps written in all, on the device; asking does not wait for it."""
        return tf.identity(self.count.value)

    def read(self, since: int = 0) -> tuple[int, dict[str, np.ndarray]]:
        """Copies the kept steps to the host; this waits for the device.

        Args:
            since: Steps already read; only later ones are returned.

        Returns:
            count: Steps written in all.
            columns: For each name of `fields()` a float32 array, oldest first; at most `size` long.
                `scale` is the one that the step's loss was multiplied by, the counters are as the
                step left them, `loss` is unscaled, and `grad_norm` is NaN where a call only
                accumulated (`is_update` is 0). `grad_zero_fraction` and
                `grad_non_finite_fraction` are the shares of the gradient's entries that were
                exactly zero, and NaN or infinite: of the gradient as it is checked, still scaled
                and summed over replicas and group. They are NaN where a call only accumulated, and
                without `counts_zeros`.
        """
        count = int(self.count.value.numpy())
        kept = min(count - since, self.size)
        positions = np.arange(count - kept, count) % self.size
        rows = self.rows.value.numpy()[positions]
        return count, {name: rows[:, i] for i, name in enumerate(self.fields)}
