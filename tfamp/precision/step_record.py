"""What is recorded of an optimizer's steps, on the device."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfamp.precision.history import StepHistory
from tfamp.precision.scale_machine import ScaleState
from tfamp.precision.state_variables import StateVariables
from tfamp.precision.step_gradients import StepGradients


class StepRecord:
    """Notes each step's loss as it passes, and writes a row of history when the step is taken.

    Args:
        state: The optimizer's state.
        size: Steps that are kept, at least 1.
    """

    def __init__(self, state: StateVariables, size: int) -> None:
        self._state = state
        self.history = StepHistory(size)
        # Whether a step's loss was ever noted, so that the history holds losses.
        self.notes_losses = False

    def note_loss(self, loss: tf.Tensor) -> None:
        """Notes a step's loss; one with many entries has no place in a row."""
        if loss.shape.rank == 0:
            self.notes_losses = True
            self._state.loss.assign(loss)

    def note_finiteness(self, loss: tf.Tensor) -> None:
        """Notes for the next update whether any entry of a loss is not finite."""
        noted = self._state.noted_non_finite_loss
        noted.assign(tf.where(tf.reduce_all(tf.math.is_finite(loss)), noted.value, 1))

    def over_replicas(self, gradients: StepGradients, is_summed: bool) -> StepGradients:
        """Sums over the replicas what was noted, and the gradients unless they are sums already."""
        state = self._state
        is_bad = tf.cast(state.noted_non_finite_loss.value, tf.float32)
        mine = gradients._replace(values=[], overwrites=[]) if is_summed else gradients
        sums, notes = mine.over_replicas_with(tf.stack([state.loss.value, is_bad]))
        state.loss.assign(notes[0])
        state.noted_non_finite_loss.assign(tf.cast(notes[1] > 0, tf.int64))
        return gradients if is_summed else sums

    def write(
        self, after: ScaleState, scale: tf.Tensor, learning_rate: tf.Tensor, **figures: Any
    ) -> None:
        """Writes a row.

        Args:
            after: The state as the step left it.
            scale: The scale that the step's loss was multiplied by.
            learning_rate: The one that the step used.
            **figures: What else was measured, by the names of `history.FIELDS`.
        """
        own = {"loss": self._state.loss.value, "scale": scale, "learning_rate": learning_rate}
        self.history.write(after._asdict() | own | figures)
