"""Reads on the host what an optimizer did on the device: rows of figures, and totals.

What a reader does, and the exact one; `keras_readers` are for optimizers that keep no history.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.run import records
from tfamp.telemetry.totals import OptimizerTotals, plus

_FIRST_SKIPS = 10


class OptimizerReader(Protocol):
    """What the recorder asks of an optimizer, whatever its kind. It numbers the steps, not this."""

    @property
    def has_losses(self) -> bool:
        """Whether the figures of each step hold its loss."""

    def longest_wait(self, steps_per_execution: int) -> int | None:
        """Steps after which there must be a read, before the oldest is lost; None for never."""

    def note(self, step: int) -> None:
        """Remembers that `step` has been given to the device; does not wait for it."""

    def read(self, since: int, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (step, figures) of what is new; waits for the device.

        Args:
            since: The step that was read last.
            step: The one that was counted last.
        """

    def totals(self) -> OptimizerTotals:
        """What was done so far, earlier phases included; waits for the device."""

    def raise_if_collapsed(self) -> None:
        """Raises `LossScaleCollapse` if loss scaling has given up."""

    def close(self) -> None:
        """Ends the reading."""


class HistoryReader:
    """Reads a `RecordedOptimizer`, scaling or not: exact, one entry for every call of `apply`.

    Args:
        optimizer: The optimizer.
        earlier: What earlier phases of the run did.
    """

    def __init__(self, optimizer: RecordedOptimizer, earlier: OptimizerTotals) -> None:
        self.optimizer = optimizer
        self._earlier = earlier
        self._lowest, self._highest = earlier.lowest, earlier.highest
        self._first_skips = list(earlier.first_skips or [])
        self._collapsed_at = earlier.collapsed_at
        # From here on count the steps of this run, whatever the optimizer did before.
        self._read = optimizer.history()[0]
        self._attempted_before = optimizer.steps_attempted
        self._counted_before = self._counts()
        self._scale_before = optimizer.scale if optimizer.is_scaling else math.nan
        self._noted: list[tuple[int, tf.Tensor]] = []
        # Whoever reads the history says what it holds.
        if isinstance(optimizer, LossScaleOptimizer):
            optimizer.announces = False

    def close(self) -> None:
        """Leaves the optimizer to speak for itself again."""
        if isinstance(self.optimizer, LossScaleOptimizer):
            self.optimizer.announces = True

    @property
    def has_losses(self) -> bool:
        """Whether the rows hold losses; not where a train_step of the user's scales none."""
        return self.optimizer.notes_losses

    def longest_wait(self, steps_per_execution: int) -> int:
        """Steps after which there must be a read, before the oldest is lost.

        Raises:
            ValueError: One call of `fit` takes more steps than the history holds.
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

    def read(self, since: int, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (step, figures) of every step since the last read; waits for the device.

        Where `apply` was called several times in a step, the figures are those of the last call.
        """
        count, columns = self.optimizer.history(self._read)
        kept = len(columns["is_update"])
        steps = self._steps_of_entries(since, count)[-kept:] if kept else []
        self._read = count
        rows: dict[int, dict[str, Any]] = {}
        for i, at in enumerate(steps):
            entry = {name: column[i] for name, column in columns.items()}
            rows[at] = self._row(entry)
            is_skip = self.optimizer.is_scaling and entry["skipped_in_a_row"] > 0
            if is_skip and entry["is_update"]:
                self._first_skips = [*self._first_skips, at][:_FIRST_SKIPS]
        yield from rows.items()

    def _steps_of_entries(self, since: int, count: int) -> list[int]:
        """The step of each entry since the last read.

        Between two notes the entries are spread evenly. What came after the last note belongs to
        a step that was not seen to end: one step each.
        """
        steps: list[int] = []
        step, read = since, self._read
        for noted_step, tensor in self._noted:
            noted = int(tensor.numpy())
            entries, taken = noted - read, noted_step - step
            steps += [step + math.ceil((i + 1) * taken / entries) for i in range(entries)]
            step, read = noted_step, noted
        self._noted.clear()
        return steps + [step + 1 + i for i in range(count - read)]

    def _row(self, entry: dict[str, np.float32]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for column, figure in records.figures_of_history().items():
            if self._has(figure, entry):
                value = float(entry[column])
                row[figure] = value if figure.kind == "number" else int(value)
                if figure.kind == "total":
                    row[figure] += (self._earlier.count(column) or 0) - self._counted_before[column]
        if self.optimizer.is_scaling:
            self._lowest = min(self._lowest, row[records.SCALE])
            self._highest = max(self._highest, row[records.SCALE])
        return row

    def _has(self, figure: records.Figure, entry: dict[str, np.float32]) -> bool:
        return {
            "always": True,
            "losses": self.has_losses,
            "updates": bool(entry["is_update"]),
            "counted": not math.isnan(entry[figure.column]),
            "scaling": self.optimizer.is_scaling,
        }[figure.measured]

    def _counts(self) -> dict[str, int]:
        if not self.optimizer.is_scaling:
            return {}
        totals = [figure.column for figure in records.FIGURES if figure.kind == "total"]
        return {column: getattr(self.optimizer, column) for column in totals}

    def totals(self) -> OptimizerTotals:
        """What was done so far, earlier phases included; waits for the device."""
        optimizer, earlier = self.optimizer, self._earlier
        attempted = optimizer.steps_attempted - self._attempted_before
        counts: dict[str, int | None] = {
            column: count - self._counted_before[column] for column, count in self._counts().items()
        }
        applied = attempted - (counts.get("skipped_total") or 0)
        totals = dataclasses.replace(
            earlier,
            attempted=earlier.attempted + attempted,
            applied=plus(earlier.applied, applied),
            counted=earlier.plus(counts),
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
