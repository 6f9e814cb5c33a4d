"""A run's rows on their way to metrics.jsonl and to TensorBoard."""

from __future__ import annotations

from typing import Any

from tfamp.run import dashboard, records
from tfamp.run.directory import RunDirectory


class RowFiles:
    """The files that rows go to. Every row of a step passes through `write_step`.

    Args:
        directory: The run's folder, prepared.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._rows = records.RowWriter(directory.metrics)
        self._train = dashboard.ScalarWriter(directory.path / "train")
        self._validation = dashboard.ScalarWriter(directory.path / "validation")
        self.last_step_row: dict[str, Any] = {}
        self.last_epoch_row: dict[str, Any] = {}

    def write_step(self, step: int, epoch: int, row: dict[str, Any]) -> None:
        """Writes the row of one step."""
        self._rows.write("step", step, epoch, row)
        self._train.write(step, row)
        self.last_step_row = row

    def write_epoch(self, step: int, epoch: int, row: dict[str, Any]) -> None:
        """Writes the row of an epoch that ended at `step`, and hands all to the system."""
        self._rows.write("epoch", step, epoch, row)
        # TensorBoard has training figures step by step; two values at one step would be a zigzag.
        costs = {n: v for n, v in row.items() if not n.startswith(("validation/", "train/"))}
        self._train.write(step, costs)
        self._validation.write(step, {n: v for n, v in row.items() if n.startswith("validation/")})
        self.last_epoch_row = row
        self._rows.flush()
        self._train.flush()
        self._validation.flush()

    def write_event(self, step: int, epoch: int, name: str, values: dict[str, Any]) -> None:
        """Writes that something happened."""
        self._rows.write("event", step, epoch, {"event": name} | values)

    def flush(self) -> None:
        """Hands the rows to the operating system."""
        self._rows.flush()

    def close(self) -> None:
        """Flushes and closes all files."""
        self._rows.close()
        self._train.close()
        self._validation.close()
