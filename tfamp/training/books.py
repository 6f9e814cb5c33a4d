"""What an optimizer's books say of each step, as rows of figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.run import records

_COLUMNS = {
    "loss": records.TRAIN_LOSS,
    "learning_rate": records.LEARNING_RATE,
    "grad_norm": records.GRADIENT_NORM,
}
_GRADIENT_SHARES = {
    "grad_zero_fraction": records.GRADIENT_ZEROS,
    "grad_non_finite_fraction": records.GRADIENT_NON_FINITE,
}
_SCALE_COUNTERS = {
    "growth_counter": records.GROWTH_COUNTER,
    "skipped_total": records.SKIPPED_TOTAL,
    "skipped_in_a_row": records.SKIPPED_IN_A_ROW,
    "skipped_non_finite_loss": records.SKIPPED_NON_FINITE_LOSS,
}


class HistoryBooks:
    """The books of a `tfamp.LossScaleOptimizer`: exact, one entry for every step.

    Args:
        optimizer: The optimizer.
        step: Steps that the run had taken before the optimizer's next one.
    """

    def __init__(self, optimizer: LossScaleOptimizer, step: int) -> None:
        self.optimizer = optimizer
        self.first_skips: list[int] = []
        self.scales_seen: list[float] = []
        self.collapsed_at: int | None = None
        self._recorded = optimizer.history()[0]
        self._before = self._recorded - step
        # Whoever reads the books says what they hold.
        optimizer.announces = False

    def close(self) -> None:
        """Leaves the optimizer to speak for itself again."""
        self.optimizer.announces = True

    @property
    def notes_losses(self) -> bool:
        """Whether the rows hold losses; not where a train_step of the user's scales none."""
        return self.optimizer.notes_losses

    def longest_wait(self, steps_per_execution: int) -> int:
        """Steps after which the books must be read, before they forget.

        Raises:
            ValueError: One call of `fit` takes more steps than the books hold.
        """
        room = self.optimizer.history_size - steps_per_execution + 1
        if room < 1:
            raise ValueError(
                f"steps_per_execution={steps_per_execution} exceeds the optimizer's history of "
                f"{self.optimizer.history_size} steps. Set history={steps_per_execution} or more "
                "on LossScaleOptimizer."
            )
        return room

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (step, figures) of every step since the last read; waits for the device."""
        count, columns = self.optimizer.history(self._recorded)
        self._recorded = count
        new = len(columns["loss"])
        for i in range(new):
            row = self._row({name: column[i] for name, column in columns.items()})
            step = count - new - self._before + 1 + i
            if row.get(records.SKIPPED_IN_A_ROW) and columns["is_update"][i]:
                self.first_skips = [*self.first_skips, step][:10]
            yield step, row

    def _row(self, entry: dict[str, np.float32]) -> dict[str, Any]:
        row: dict[str, Any] = {name: float(entry[key]) for key, name in _COLUMNS.items()}
        if not entry["is_update"]:
            del row[records.GRADIENT_NORM]
        if not self.notes_losses:
            del row[records.TRAIN_LOSS]
        # NaN where the optimizer does not count, or has only accumulated.
        shares = {name: float(entry[key]) for key, name in _GRADIENT_SHARES.items()}
        row |= {name: share for name, share in shares.items() if not math.isnan(share)}
        if self.optimizer.is_scaling:
            row[records.SCALE] = float(entry["scale"])
            row |= {name: int(entry[key]) for key, name in _SCALE_COUNTERS.items()}
            self.scales_seen = [
                min([*self.scales_seen[:1], row[records.SCALE]]),
                max([*self.scales_seen[1:], row[records.SCALE]]),
            ]
        return row

    def raise_if_collapsed(self) -> None:
        """Raises `LossScaleCollapse` if loss scaling has given up."""
        if self.optimizer.is_scaling:
            collapse = self.optimizer.take_collapse()
            if collapse is not None:
                self.collapsed_at = collapse.step
                raise collapse

    def loss_scale_result(self) -> dict[str, Any] | None:
        """What result.json says of the loss scale; None where nothing is scaled."""
        optimizer = self.optimizer
        if not optimizer.is_scaling:
            return None
        seen = [*self.scales_seen, optimizer.scale]
        return {
            "mode": "dynamic" if optimizer.dynamic else "static",
            "initial": optimizer.initial_scale,
            "final": optimizer.scale,
            "min": min(seen),
            "max": max(seen),
            "skipped": optimizer.skipped_total,
            "skipped_non_finite_loss": optimizer.skipped_non_finite_loss,
            "collapsed_at": self.collapsed_at,
            "first_skips": self.first_skips,
        }


def books_of(optimizer: keras.optimizers.Optimizer, step: int) -> HistoryBooks | None:
    """The books of an optimizer; None for one that keeps none."""
    return HistoryBooks(optimizer, step) if isinstance(optimizer, LossScaleOptimizer) else None
