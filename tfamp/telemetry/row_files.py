"""A run's rows on their way to metrics.jsonl and to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfamp.precision.underflow_found import Measured
from tfamp.run import records
from tfamp.run.directory import RunDirectory
from tfamp.telemetry import tensorboard as dashboard


class RowFiles:
    """The files that rows go to. Every row of a step passes through `write_step`.

    Args:
        directory: The run's folder, which is there when they are opened.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        # What TensorBoard's HParams tab compares the run by; None leaves it out there.
        self.hparams: Mapping[str, str | int | float] | None = None
        self.last_step_row: dict[str, Any] = {}
        self.last_epoch_row: dict[str, Any] = {}

    def open(self) -> None:
        """Opens the files, behind what is there; again after `close`, for a run's next phase."""
        self._rows = records.RowWriter(self._directory.metrics)
        self._events = dashboard.RunEvents(self._directory.path, self.hparams)
        # Said once: TensorBoard keeps it.
        self.hparams = None

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

    def write_underflow(self, step: int, epoch: int, measured: Measured) -> None:
        """Writes what the underflow meter found in a step, layer by layer."""
        self._rows.write("underflow", step, epoch, measured.row())
        self._events.write_underflow(step, measured)

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
