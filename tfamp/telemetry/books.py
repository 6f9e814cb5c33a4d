"""What an optimizer's books say of each step, as rows of figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.run import records


@dataclasses.dataclass
class Totals:
    """What a run's optimizers have done, over all phases of the run.

    Attributes:
        attempted: Updates tried.
        applied: Updates that reached the weights; None where that is not known.
        skipped: Updates that were skipped; None where that is not known.
        skipped_non_finite_loss: Those of them whose loss was not finite; None where not known.
        collapsed_at: The step at which loss scaling collapsed, if it did.
        first_skips: Steps of the first ten skips; None where they are not known.
        mode: `"dynamic"` or `"static"`; None while nothing was scaled.
        initial: The first scale.
        final: The last.
        lowest: The smallest that was seen.
        highest: The largest.
    """

    attempted: int = 0
    applied: int | None = 0
    skipped: int | None = 0
    skipped_non_finite_loss: int | None = 0
    collapsed_at: int | None = None
    first_skips: list[int] | None = dataclasses.field(default_factory=list)
    mode: str | None = None
    initial: float = math.nan
    final: float = math.nan
    lowest: float = math.inf
    highest: float = -math.inf

    def loss_scale_result(self) -> dict[str, Any] | None:
        """What result.json says of the loss scale; None where nothing was scaled."""
        if self.mode is None:
            return None
        return {
            "mode": self.mode,
            "initial": self.initial,
            "final": self.final,
            "min": self.lowest,
            "max": self.highest,
            "skipped": self.skipped,
            "skipped_non_finite_loss": self.skipped_non_finite_loss,
            "collapsed_at": self.collapsed_at,
            "first_skips": self.first_skips,
        }


class Books(Protocol):
    """What the recorder asks of an optimizer, whatever its kind."""

    @property
    def notes_losses(self) -> bool:
        """Whether the figures of each step hold its loss."""

    def longest_wait(self, steps_per_execution: int) -> int | None:
        """Steps after which the books must be read, before they forget; None for never."""

    def note(self, step: int) -> None:
        """Remembers that `step` has been given to the device; does not wait for it."""

    def read(self, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (step, figures) of what is new up to `step`; waits for the device."""

    def totals(self) -> Totals:
        """What was done so far, earlier phases included; waits for the device."""

    def raise_if_collapsed(self) -> None:
        """Raises `LossScaleCollapse` if loss scaling has given up."""

    def close(self) -> None:
        """Ends the reading."""


class HistoryBooks:
    """The books of a `tfamp.LossScaleOptimizer`: exact, one entry for every call of `apply`.

    Args:
        optimizer: The optimizer.
        step: Steps that the run had taken before the optimizer's next one.
        earlier: What earlier phases of the run did.
    """

    def __init__(self, optimizer: LossScaleOptimizer, step: int, earlier: Totals) -> None:
        self.optimizer = optimizer
        self._earlier = earlier
        self._lowest, self._highest = earlier.lowest, earlier.highest
        self._first_skips = list(earlier.first_skips or [])
        self._recorded = optimizer.history()[0]
        # From here on count the steps of this run, whatever the optimizer did before.
        self._attempted_before = optimizer.steps_attempted
        self._skipped_before = optimizer.skipped_total
        self._bad_losses_before = optimizer.skipped_non_finite_loss
        self._shifts = {
            "skipped_total": (earlier.skipped or 0) - self._skipped_before,
            "skipped_non_finite_loss": (
                (earlier.skipped_non_finite_loss or 0) - self._bad_losses_before
            ),
        }
        self._collapsed_at = earlier.collapsed_at
        self._scale_before = optimizer.scale
        self._step = step
        self._noted: list[tuple[int, tf.Tensor]] = []
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

    def note(self, step: int) -> None:
        """Remembers how many entries there are after a step, as a number on the device."""
        self._noted.append((step, self.optimizer.history_count()))

    def read(self, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (step, figures) of every step since the last read; waits for the device.

        Where `apply` was called several times in a step, the figures are those of the last call.
        """
        count, columns = self.optimizer.history(self._recorded)
        kept = len(columns["loss"])
        steps = self._steps_of_entries(count)[-kept:] if kept else []
        self._recorded = count
        rows: dict[int, dict[str, Any]] = {}
        for i, at in enumerate(steps):
            entry = {name: column[i] for name, column in columns.items()}
            rows[at] = self._row(entry)
            is_skip = self.optimizer.is_scaling and entry["skipped_in_a_row"] > 0
            if is_skip and entry["is_update"]:
                self._first_skips = [*self._first_skips, at][:10]
        yield from rows.items()

    def _steps_of_entries(self, count: int) -> list[int]:
        """The step of each entry since the last read.

        Between two notes the entries are spread evenly. What came after the last note belongs to
        a step that was not seen to end: one step each.
        """
        steps: list[int] = []
        step, recorded = self._step, self._recorded
        for noted_step, tensor in self._noted:
            noted = int(tensor.numpy())
            entries, taken = noted - recorded, noted_step - step
            steps += [step + math.ceil((i + 1) * taken / entries) for i in range(entries)]
            step, recorded = noted_step, noted
        self._noted.clear()
        steps += [step + 1 + i for i in range(count - recorded)]
        self._step = max([step, *steps[-1:]])
        return steps

    def _row(self, entry: dict[str, np.float32]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for column, figure in records.figures_of_history().items():
            if self._has(figure, entry):
                value = float(entry[column])
                row[figure] = value if figure.kind == "number" else int(value)
                if figure.kind == "total":
                    row[figure] += self._shifts[column]
        if self.optimizer.is_scaling:
            self._lowest = min(self._lowest, row[records.SCALE])
            self._highest = max(self._highest, row[records.SCALE])
        return row

    def _has(self, figure: records.Figure, entry: dict[str, np.float32]) -> bool:
        return {
            "always": True,
            "losses": self.notes_losses,
            "updates": bool(entry["is_update"]),
            "counted": not math.isnan(entry[figure.column]),
            "scaling": self.optimizer.is_scaling,
        }[figure.measured]

    def totals(self) -> Totals:
        """What was done so far, earlier phases included; waits for the device."""
        optimizer, earlier = self.optimizer, self._earlier
        attempted = optimizer.steps_attempted - self._attempted_before
        skipped = optimizer.skipped_total - self._skipped_before
        bad_losses = optimizer.skipped_non_finite_loss - self._bad_losses_before
        totals = dataclasses.replace(
            earlier,
            attempted=earlier.attempted + attempted,
            applied=plus(earlier.applied, attempted - skipped),
            skipped=plus(earlier.skipped, skipped),
            skipped_non_finite_loss=plus(earlier.skipped_non_finite_loss, bad_losses),
            collapsed_at=self._collapsed_at,
        )
        if optimizer.is_scaling:
            totals.mode = "dynamic" if optimizer.dynamic else "static"
            totals.first_skips = None if earlier.first_skips is None else self._first_skips
            totals.initial = self._scale_before if earlier.mode is None else earlier.initial
            totals.final = optimizer.scale
            totals.lowest = min(self._lowest, totals.final)
            totals.highest = max(self._highest, totals.final)
        return totals

    def raise_if_collapsed(self) -> None:
        """Raises `LossScaleCollapse` if loss scaling has given up."""
        if self.optimizer.is_scaling:
            collapse = self.optimizer.take_collapse()
            if collapse is not None:
                before = self._attempted_before - self._earlier.attempted
                self._collapsed_at = collapse.step - before
                raise collapse


def plus(first: int | None, second: int | None) -> int | None:
    """The sum of two counts; None where one of them is not known."""
    return None if first is None or second is None else first + second
