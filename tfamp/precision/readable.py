"""What the host may ask of a `LossScaleOptimizer`; each answer is read from the device."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import watch
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.history import StepHistory
from tfamp.precision.scale_machine import ScaleMachine
from tfamp.run.scale_rules import ScaleRules


class ReadableState:
    """The readable half of `LossScaleOptimizer`, which see. Every property waits for the device."""

    _scales: bool
    _notes_losses: bool
    _group_size: int
    _machine: ScaleMachine
    _history: StepHistory
    _grad_norm: keras.Variable
    _trainable_variables: list[keras.Variable]

    @property
    def scale(self) -> float:
        """The loss scale now."""
        return float(_value(self._machine.scale))

    @property
    def growth_counter(self) -> int:
        """Clean steps since the scale last moved."""
        return int(_value(self._machine.growth_counter))

    @property
    def steps_attempted(self) -> int:
        """Updates tried: applied and skipped."""
        return int(_value(self._machine.attempted))

    @property
    def steps_applied(self) -> int:
        """Updates that reached the weights."""
        return self.steps_attempted - self.skipped_total

    @property
    def skipped_total(self) -> int:
        """Updates skipped because a gradient was not finite."""
        return int(_value(self._machine.skipped_total))

    @property
    def skipped_in_a_row(self) -> int:
        """Skips since the last applied update."""
        return int(_value(self._machine.skipped_in_a_row))

    @property
    def skipped_non_finite_loss(self) -> int:
        """Updates skipped although no scale could help: their loss was NaN or infinite itself."""
        return int(_value(self._machine.late["skipped_non_finite_loss"]))

    @property
    def collapsed_at(self) -> int | None:
        """The attempted step, from 1, of a collapse that nobody has taken yet; else None."""
        return self._machine.read_collapsed_at()

    @property
    def announces(self) -> bool:
        """Whether collapses and skips of bad losses are told on stderr; see `watch`.

        Who reads and tells them otherwise, as tfamp's loops and its callback do, switches it off
        meanwhile.
        """
        return self._machine.announces

    @announces.setter
    def announces(self, value: bool) -> None:
        if value and not self._machine.announces:
            watch.consider_told(self._machine)
        self._machine.announces = value

    @property
    def grad_norm(self) -> float:
        """Global norm of the last update's gradient, unscaled, before clipping."""
        return float(_value(self._grad_norm))

    @property
    def history_size(self) -> int:
        """Steps that `history()` holds at most."""
        return self._history.size

    @property
    def rules(self) -> ScaleRules:
        """The rules of the scale, as they were given."""
        return self._machine.rules

    @property
    def accumulation_steps(self) -> int:
        """Calls of `apply` that make one update."""
        return self._group_size

    @property
    def is_scaling(self) -> bool:
        """Whether the loss is multiplied by a scale at all."""
        return self._scales

    @property
    def notes_losses(self) -> bool:
        """Whether `scale_loss` was called on a step's loss, so that the history holds losses."""
        return self._notes_losses

    @property
    def keeps_averages(self) -> bool:
        """Whether whoever trains puts moving averages back at a skip; `watch` then leaves them."""
        return self._machine.keeps_averages

    @keeps_averages.setter
    def keeps_averages(self, value: bool) -> None:
        self._machine.keeps_averages = value

    def history(self, since: int = 0) -> tuple[int, dict[str, np.ndarray]]:
        """The last steps, exactly, one entry a call of `apply`; see `StepHistory.read`.

        `scale` is the one that the step's loss was multiplied by, the counters are as the step
        left them, `loss` is unscaled, and `grad_norm` is NaN where a call only accumulated
        (`is_update` is 0). `grad_zero_fraction` and `grad_non_finite_fraction` are the shares of
        the gradient's entries that were exactly zero, and NaN or infinite: of the gradient as it
        is checked, still scaled and summed over replicas and group. They are NaN where a call only
        accumulated, and without `counts_zeros`.
        """
        return self._history.read(since)

    def history_count(self) -> tf.Tensor:
        """int64 scalar: entries of `history()` so far, on the device; asking does not wait."""
        return self._history.written()

    def raise_if_collapsed(self) -> None:
        """Raises if loss scaling has collapsed since the last call; reads from the device.

        Raises:
            LossScaleCollapse: Says when, at which scale, how many skips, and which gradient.
        """
        collapse = self.take_collapse()
        if collapse is not None:
            raise collapse

    def take_collapse(self) -> LossScaleCollapse | None:
        """The collapse that nobody has taken yet, which ends it; training may go on."""
        return self._machine.take_collapse()


def _value(variable: keras.Variable) -> np.ndarray:
    # Read through the tf.Variable: under a strategy a Keras variable has no __float__.
    return variable.value.numpy()
