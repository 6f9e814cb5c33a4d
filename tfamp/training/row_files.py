"""A run's rows on their way to metrics.jsonl and to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfamp.run import dashboard, records
from tfamp.run.directory import RunDirectory


class RowFiles:
    """The files that rows go to. Every row of a step passes through `write_step`.

    Args:
        directory: The run's folder, prepared.
        hparams: What TensorBoard's HParams tab compares the run by; None leaves it out there.
    """

    def __init__(
        self, directory: RunDirectory, hparams: Mapping[str, str | int | float] | None = None
    ) -> None:
        self._rows = records.RowWriter(directory.metrics)
        self._events = dashboard.RunEvents(directory.path, hparams)
        self.last_step_row: dict[str, Any] = {}
        self.last_epoch_row: dict[str, Any] = {}

    def write_step(self, step: int, epoch: int, row: dict[str, Any]) -> None:
        """Writes the row of one step."""
        self._rows.write("step", step, epoch, row)
        self._events.write_step(step, row)
        self.last_step_row = row

    def write_epoch(self, step: int, epoch: int, row: dict[str, Any]) -> None:
        """Writes the row of an epoch that ended at `step`, and hands all to the system."""
        self._rows.write("epoch", step, epoch, row)
        self._events.write_epoch(step, row)
        self.last_epoch_row = row
        self._rows.flush()

    def write_event(self, step: int, epoch: int, name: str, values: dict[str, Any]) -> None:
        """Writes that something happened."""
        self._rows.write("event", step, epoch, {"event": name} | values)

    def flush(self) -> None:
        """Hands the rows to the operating system."""
        self._rows.flush()

    def close(self) -> None:
        """Flushes and closes all files."""
        self._rows.close()
        self._events.close()
