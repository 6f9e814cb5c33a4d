"""The last steps of an optimizer, kept on the device and read in bulk."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfamp.precision.scale_machine import device_variable
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

    def write(self, values: Mapping[str, tf.Tensor]) -> None:
        """Appends one step, in a graph or eagerly.

        Args:
            values: A scalar for each name of `fields()`; NaN where there is none.
        """
        row = tf.stack([tf.cast(values[name], tf.float32) for name in self.fields])
        position = tf.cast(self.count.value % self.size, tf.int32)
        here = tf.equal(tf.range(self.size), position)[:, tf.newaxis]
        self.rows.assign(tf.where(here, row, self.rows.value))
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
        """
        count = int(self.count.value.numpy())
        kept = min(count - since, self.size)
        positions = np.arange(count - kept, count) % self.size
        rows = self.rows.value.numpy()[positions]
        return count, {name: rows[:, i] for i, name in enumerate(self.fields)}
