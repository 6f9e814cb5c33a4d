"""Takes in what a loop does, reads the device at marks, and writes the rows: one run's, any loop's.

`callback` (for Keras's `fit` and tfamp's custom loop) and `hand_written` (for a user's own loop)
tell it of steps and epochs. What it adds up is in `figures`; what it writes goes to `row_files`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from tfamp.precision.underflow import UnderflowMeter
from tfamp.run import records
from tfamp.run.directory import RunDirectory
from tfamp.run.result import Figures
from tfamp.telemetry import memory
from tfamp.telemetry.clock import StepClock
from tfamp.telemetry.figures import EpochFigures, RunFigures
from tfamp.telemetry.keras_readers import reader_of
from tfamp.telemetry.loop_metrics import LoopMetrics
from tfamp.telemetry.non_finite import NonFiniteWatch
from tfamp.telemetry.optimizer_readers import OptimizerReader
from tfamp.telemetry.row_files import RowFiles
from tfamp.telemetry.totals import OptimizerTotals


class Recorder:
    """Counts steps and epochs; at a mark reads what the device has kept and writes it down.

    A run may have several phases, each with its own optimizers: `begin` to `close`. Steps, epochs
    and counts go on over all of them, and over the processes of a run that is resumed.

    Args:
        directory: The run's folder.
        log_every: Steps between two marks.
        batch_size: Examples a step, or None.
        clock: What times the run.
    """

    def __init__(
        self,
        directory: RunDirectory,
        log_every: int,
        batch_size: int | None,
        clock: StepClock | None = None,
    ) -> None:
        self.directory = directory
        self.log_every = log_every
        self.batch_size = batch_size
        self.clock = clock or StepClock()
        self.non_finite = NonFiniteWatch()
        self.files = RowFiles(directory)
        self.is_open = False
        self._is_training = False
        self._readers: dict[str, OptimizerReader] = {}
        self._epoch_row: dict[str, Any] = {}
        self._take(RunFigures())

    # What is saved.

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs of the figures so far, as JSON can hold it.

        The rows of all steps that it covers are in the files then.
        """
        figures = self.figures
        if self.is_open:
            self._write({})
            self.files.flush()
        if self._is_training:
            epoch = self._epoch_so_far(self.clock.now())
            figures = dataclasses.replace(figures, epoch=epoch, next_epoch=epoch.number)
        return dataclasses.replace(figures, optimizers=self._totals()).state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was asked for; before the first phase begins.

        An epoch that was open then goes on with the next call of `begin_epoch`. What ran between
        two marks is not timed.

        Raises:
            RuntimeError: A phase is open, whose steps would be lost.
        """
        if self.is_open:
            raise RuntimeError(
                "The figures of a run were to be restored while it trains: that is possible "
                "before it begins. Call restore() before fit()."
            )
        self._take(RunFigures.restored(state))

    def _take(self, figures: RunFigures) -> None:
        self.figures = figures
        self.clock.windows = figures.windows
        self.non_finite.found = figures.non_finite

    # A phase.

    def begin(
        self,
        optimizers: Mapping[str, keras.optimizers.Optimizer],
        metrics: LoopMetrics,
        steps_per_execution: int = 1,
        underflow: UnderflowMeter | None = None,
    ) -> None:
        """Opens the files for a phase.

        Args:
            optimizers: The phase's optimizers by name; one alone has the name "".
            metrics: What the loop knows of its steps.
            steps_per_execution: Steps that one call of the device takes.
            underflow: The phase's underflow meter, if there is one.
        """
        # An exception that was caught may have ended the phase before.
        self.close()
        self._readers = {
            name: reader_of(optimizer, self.figures.optimizers.get(name))
            for name, optimizer in optimizers.items()
        }
        self._metrics, self._underflow = metrics, underflow
        waits = [reader.longest_wait(steps_per_execution) for reader in self._readers.values()]
        waits.append(underflow.longest_wait if underflow else None)
        self._mark_every = min([self.log_every, *(wait for wait in waits if wait)])
        self._device = memory.training_device()
        self.files.open()
        self.is_open = True
        self._epoch_shift: int | None = None
        self._read_to = self.figures.step
        self._waits_for_first_call = True

    def close(self) -> None:
        """Writes the steps that are still on the device and closes the files; safe to repeat."""
        if not self.is_open:
            return
        self.is_open = self._is_training = self.figures.epoch.is_open = False
        self.clock.pause()
        try:
            self._write({})
            # Now: an optimizer may work on between two phases.
            self.figures.optimizers = self._totals()
        finally:
            for reader in self._readers.values():
                reader.close()
            self._readers = {}
            self.files.close()

    # An epoch.

    def begin_epoch(self, number: int) -> None:
        """Starts an epoch's clock and its memory peak.

        Args:
            number: The loop's own; it goes on where the phase before ended.
        """
        figures = self.figures
        if self._epoch_shift is None:
            self._epoch_shift = max(0, figures.next_epoch - number)
        # One that is open was restored in its midst.
        if not figures.epoch.is_open:
            number += self._epoch_shift
            figures.epoch = EpochFigures(number, start=figures.step, is_open=True)
            figures.marked = figures.step
        figures.next_epoch = figures.epoch.number + 1
        memory.reset_device_peak(self._device)
        self._is_training, self._epoch_began = True, self.clock.now()
        if not self._waits_for_first_call:
            self.clock.start(figures.step)

    def end_epoch_training(self, ended_at: float | None = None) -> None:
        """Ends the epoch's training, before anything else takes the device; safe to repeat.

        Args:
            ended_at: When training ended, by the recorder's clock, if that was before now. The
                steps since the last mark are then not timed.
        """
        if not self._is_training:
            return
        self._is_training = False
        if ended_at is not None:
            self.clock.pause()
        if self.figures.step > self.figures.marked:
            self.mark()
        self.clock.pause()
        epoch = self._epoch_so_far(self.clock.now() if ended_at is None else ended_at)
        current, _ = memory.device_bytes(self._device)
        host_peak = memory.host_peak_rss_bytes()
        self.figures.end_epoch(epoch, host_peak)
        self._epoch_row = {records.EPOCH_TIME: epoch.seconds, records.HOST_PEAK: host_peak}
        if epoch.device_peak:
            # A device that counts nothing says 0: absent, not zero.
            self._epoch_row[records.DEVICE_PEAK] = epoch.device_peak
            self._epoch_row[records.DEVICE_CURRENT] = current

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Writes the epoch's row.

        Args:
            metrics: The epoch's, by their names in rows.
        """
        # Not every epoch may be validated: the last figures stand.
        self.figures.metrics |= metrics
        if self.is_open:
            row = {**metrics, **self._epoch_row}
            self.files.write_epoch(self.figures.step, self.figures.epoch.number, row)

    def _epoch_so_far(self, now: float) -> EpochFigures:
        epoch = self.figures.epoch
        _, peak = memory.device_bytes(self._device)
        return dataclasses.replace(
            epoch,
            seconds=epoch.seconds + now - self._epoch_began,
            device_peak=max(epoch.device_peak, peak),
        )

    # A step.

    def count(self, step: int) -> None:
        """Takes note that `step` steps were given to the device; reads it where a mark is due."""
        self.figures.step = step
        for reader in self._readers.values():
            reader.note(step)
        if self._waits_for_first_call:
            # It traced and compiled: it is waited for, and no window holds it.
            self._metrics.wait()
            self._waits_for_first_call = False
            if self.figures.first_call_seconds is None:
                self.figures.first_call_seconds = self.clock.now() - self._epoch_began
            self.clock.start(step)
        if step - self.figures.marked >= self._mark_every:
            self.mark()

    def mark(self) -> None:
        """Waits for the device and writes the rows of the steps since the last mark."""
        has_losses = "" in self._readers and self._readers[""].has_losses
        rows = {step: dict(row) for step, row in self._metrics.take(has_losses).items()}
        step = self.figures.step
        window = self.clock.mark(step)
        if window is not None:
            last = rows.setdefault(step, {})
            last[records.STEP_TIME] = window.step_ms
            if self.batch_size:
                last[records.THROUGHPUT] = 1e3 * self.batch_size / window.step_ms
        self._write(rows)
        self.files.flush()
        self.figures.marked = self.figures.step
        for reader in self._readers.values():
            self.non_finite.take_collapse(reader.raise_if_collapsed)

    def _write(self, known: Mapping[int, Mapping[str, Any]]) -> None:
        rows: dict[int, dict[str, Any]] = {}
        for name, reader in self._readers.items():
            for step, row in reader.read(self._read_to, self.figures.step):
                named = {records.of_optimizer(figure, name): value for figure, value in row.items()}
                rows[step] = rows.get(step, {}) | named
        for step, given in known.items():
            rows[step] = rows.get(step, {}) | dict(given)
        epoch = self.figures.epoch.number
        measured = {each.step: each for each in self._underflow.read()} if self._underflow else {}
        for step, each in measured.items():
            rows[step] = rows.get(step, {}) | each.figures()
        for step in sorted(rows):
            if rows[step]:
                self.files.write_step(step, epoch, rows[step])
                self.non_finite.see(step, epoch, rows[step])
            if step in measured:
                self.files.write_underflow(step, epoch, measured[step])
                self.figures.underflow.add(measured[step])
        # A step that broke off before its end was counted may have been taken all the same.
        self._read_to = self.figures.step = max([self.figures.step, *rows])

    # What others ask.

    @property
    def step(self) -> int:
        """Steps that were given to the device so far: the run's one counter of them."""
        return self.figures.step

    def event(self, name: str, values: dict[str, Any] | None = None) -> None:
        """Writes an event row, after the rows of the steps before it."""
        if self.is_open:
            try:
                self._write({})
            finally:
                step, epoch = self.figures.step, self.figures.epoch.number
                self.files.write_event(step, epoch, name, values or {})

    def result(self) -> Figures:
        """The figures of the run so far, as in result.json; waits for the device."""
        figures = dataclasses.replace(self.figures, optimizers=self._totals())
        return figures.result(self.batch_size)

    def _totals(self) -> dict[str, OptimizerTotals]:
        return self.figures.optimizers | {
            name: reader.totals() for name, reader in self._readers.items()
        }
