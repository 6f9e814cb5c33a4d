"""One run's steps, epochs and figures, whoever runs the loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import keras

from tfamp.run import records
from tfamp.run.directory import RunDirectory
from tfamp.telemetry import memory
from tfamp.telemetry.books import Books, Totals
from tfamp.telemetry.clock import StepClock
from tfamp.telemetry.non_finite import NonFiniteWatch
from tfamp.telemetry.plain_books import books_of
from tfamp.telemetry.row_files import RowFiles


class Recorder:
    """Counts steps and epochs; at a mark reads what the device has kept and writes it down.

    A run may have several phases, each with its own optimizers: `begin` to `close`. Steps, epochs
    and counts go on over all of them.

    Args:
        directory: The run's folder.
        log_every: Steps between two marks.
        batch_size: Examples a step, or None.
    """

    def __init__(self, directory: RunDirectory, log_every: int, batch_size: int | None) -> None:
        self.directory = directory
        self.log_every = log_every
        self.batch_size = batch_size
        self.clock = StepClock()
        self.non_finite = NonFiniteWatch()
        self.step = 0
        self.epoch = 0
        self.epoch_times: list[float] = []
        self.first_call_seconds: float | None = None
        self.device_peak = 0
        self.files = RowFiles(directory)
        self.is_open = False
        self._books: dict[str, Books] = {}
        self._totals: dict[str, Totals] = {}
        self.next_epoch = 0
        self.has_open_epoch = False
        self._epoch_row: dict[str, Any] = {}
        self._metrics: dict[str, Any] = {}

    # A phase.

    def begin(
        self, optimizers: Mapping[str, keras.optimizers.Optimizer], steps_per_execution: int = 1
    ) -> None:
        """Opens the files for a phase.

        Args:
            optimizers: The phase's optimizers by name; one alone has the name "".
            steps_per_execution: Steps that one call of the device takes.
        """
        earlier = self._totals
        self._books = {
            name: books_of(optimizer, self.step, earlier.pop(name, None))
            for name, optimizer in optimizers.items()
        }
        self._totals = earlier
        waits = [books.longest_wait(steps_per_execution) for books in self._books.values()]
        self._mark_every = min([self.log_every, *(wait for wait in waits if wait)])
        self._device = memory.training_device()
        self.files.open()
        self.is_open = True
        self._epoch_shift: int | None = None
        self.marked = self.step
        self._waits_for_first_call = True

    @property
    def keeps_losses(self) -> bool:
        """Whether the optimizer's books hold the loss of every step."""
        return "" in self._books and self._books[""].notes_losses

    def close(self) -> None:
        """Writes the steps that are still on the device and closes the files; safe to repeat."""
        if not self.is_open:
            return
        self.is_open = self.has_open_epoch = False
        self.clock.pause()
        try:
            self._write({})
            # Now: an optimizer may work on between two phases.
            self._totals = self.totals()
        finally:
            for books in self._books.values():
                books.close()
            self._books = {}
            self.files.close()

    # An epoch.

    def begin_epoch(self, epoch: int) -> None:
        """Starts an epoch's clock and its memory peak.

        Args:
            epoch: The loop's own number; it goes on where the phase before ended.
        """
        if self._epoch_shift is None:
            self._epoch_shift = max(0, self.next_epoch - epoch)
        self.epoch = epoch + self._epoch_shift
        self.next_epoch = self.epoch + 1
        self.has_open_epoch = True
        self.marked = self.step
        memory.reset_device_peak(self._device)
        self._epoch_start = time.perf_counter()
        if not self._waits_for_first_call:
            self.clock.start(self.step)

    def end_epoch_training(
        self, figures: Mapping[int, Mapping[str, Any]], ended_at: float | None = None
    ) -> None:
        """Ends the epoch's training, before anything else takes the device; safe to repeat.

        Args:
            figures: As for `mark`.
            ended_at: When training ended, by `time.perf_counter`, if that was before now. The
                steps since the last mark are then not timed.
        """
        if not self.has_open_epoch:
            return
        self.has_open_epoch = False
        if ended_at is not None:
            self.clock.pause()
        if self.step > self.marked:
            self.mark(figures)
        self.clock.pause()
        current, peak = memory.device_bytes(self._device)
        self.device_peak = max(self.device_peak, peak)
        self.epoch_times.append((ended_at or time.perf_counter()) - self._epoch_start)
        self._epoch_row = {
            records.EPOCH_TIME: self.epoch_times[-1],
            records.HOST_PEAK: memory.host_peak_rss_bytes(),
        }
        if peak:
            # A device that counts nothing says 0: absent, not zero.
            self._epoch_row |= {records.DEVICE_PEAK: peak, records.DEVICE_CURRENT: current}

    def end_epoch(self, figures: Mapping[str, Any]) -> None:
        """Writes the epoch's row.

        Args:
            figures: The epoch's metrics.
        """
        # Not every epoch may be validated: the last figures stand.
        self._metrics |= figures
        if self.is_open:
            self.files.write_epoch(self.step, self.epoch, dict(figures) | self._epoch_row)

    # A step.

    def count(self, step: int) -> bool:
        """Takes note that `step` steps were given to the device.

        Returns:
            Whether a mark is due.
        """
        self.step = step
        for books in self._books.values():
            books.note(step)
        return step - self.marked >= self._mark_every

    @property
    def is_first_call(self) -> bool:
        """Whether the phase's first call, which traces and compiles, was not waited for yet."""
        return self._waits_for_first_call

    def first_call_ended(self) -> None:
        """Starts the clock, once the first call has been waited for: no window holds it."""
        self._waits_for_first_call = False
        if self.first_call_seconds is None:
            self.first_call_seconds = time.perf_counter() - self._epoch_start
        self.clock.start(self.step)

    def mark(self, figures: Mapping[int, Mapping[str, Any]]) -> None:
        """Reads the books and writes the rows of the steps since the last mark.

        Args:
            figures: What the loop knows of a step, by step; the device was waited for.
        """
        window = self.clock.mark(self.step)
        rows = {step: dict(row) for step, row in figures.items()}
        if window is not None:
            last = rows.setdefault(self.step, {})
            last[records.STEP_TIME] = window.step_ms
            if self.batch_size:
                last[records.THROUGHPUT] = 1e3 * self.batch_size / window.step_ms
        self._write(rows)
        self.files.flush()
        self.marked = self.step
        for books in self._books.values():
            self.non_finite.take_collapse(books.raise_if_collapsed)

    def _write(self, figures: Mapping[int, Mapping[str, Any]]) -> None:
        rows: dict[int, dict[str, Any]] = {}
        for name, books in self._books.items():
            for step, row in books.read(self.step):
                named = {records.of_optimizer(key, name): value for key, value in row.items()}
                rows[step] = rows.get(step, {}) | named
        for step, known in figures.items():
            rows[step] = rows.get(step, {}) | dict(known)
        for step in sorted(rows):
            if rows[step]:
                self.files.write_step(step, self.epoch, rows[step])
                self.non_finite.see(step, self.epoch, rows[step])
        # A step that broke off before its end was counted may have been taken all the same.
        self.step = max([self.step, *rows])

    # What others ask.

    def event(self, name: str, values: dict[str, Any] | None = None) -> None:
        """Writes an event row, after the rows of the steps before it."""
        if self.is_open:
            try:
                self._write({})
            finally:
                self.files.write_event(self.step, self.epoch, name, values or {})

    def totals(self) -> dict[str, Totals]:
        """What each optimizer did in all phases, by name; waits for the device."""
        return self._totals | {name: books.totals() for name, books in self._books.items()}

    def result(self) -> dict[str, Any]:
        """The figures of the run so far, under result.json's names; see CONTRIBUTING.md."""
        step_time = self.clock.summary()
        totals = self.totals()
        single = totals.pop("", Totals(attempted=self.step, applied=None))
        figures = {
            "epochs": len(self.epoch_times),
            "steps_attempted": single.attempted,
            "steps_applied": single.applied,
            "validation_accuracy": self._metrics.get(records.VALIDATION_ACCURACY),
            "validation_loss": self._metrics.get(records.VALIDATION_LOSS),
            "train_loss": self._metrics.get(records.TRAIN_LOSS),
            "epoch_time_sec": self.epoch_times,
            "first_call_sec": self.first_call_seconds,
            "step_time_ms": step_time,
            "examples_per_sec": (
                1e3 * self.batch_size / step_time["median"]
                if self.batch_size and step_time
                else None
            ),
            "device_peak_bytes": self.device_peak or None,
            "host_peak_rss_bytes": memory.host_peak_rss_bytes(),
            "loss_scale": _as_json(single.loss_scale_result()),
            "non_finite": self.non_finite.result(),
        }
        if totals:
            figures["optimizers"] = {
                name: {
                    "steps_attempted": each.attempted,
                    "steps_applied": each.applied,
                    "loss_scale": _as_json(each.loss_scale_result()),
                }
                for name, each in totals.items()
                if each.attempted
            }
        return _as_json(figures | {"metrics": _as_json(self._metrics)})


def _as_json(figures: dict[str, Any] | None) -> Any:
    return figures and {
        name: records.to_json_number(value) if isinstance(value, float) else value
        for name, value in figures.items()
    }
