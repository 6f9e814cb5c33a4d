"""The telemetry callback: what precision did, step by step, without waiting for each step."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import keras
import numpy as np

from tfamp.precision.unscaled import warn_if_unscaled
from tfamp.run import memory, records
from tfamp.run.clock import StepClock
from tfamp.run.directory import ARGUMENTS, FLAGS, RunDirectory
from tfamp.training.books import HistoryBooks, books_of
from tfamp.training.row_files import RowFiles


class PrecisionTelemetry(keras.callbacks.Callback):
    """Writes a run directory: rows for every step and epoch, TensorBoard events, a result.

    Drops into any `fit`. With `tfamp.LossScaleOptimizer` each step's loss, loss scale, skips and
    gradient norm are kept on the device and read every `log_every` steps; with another optimizer
    there is one row for each `log_every` steps with the loss, accuracy and time that Keras knows.

    >>> model.fit(x, y, callbacks=[tfamp.PrecisionTelemetry("runs/mine")])

    Args:
        run_directory: The run's own folder. What an unfinished run left there is replaced.
        log_every: Steps between two reads from the device.
        batch_size: Examples a step, for the throughput; None leaves it out.
        overwrite: Whether a completed run there may be replaced.
        owns_result: Whether this callback writes config.json and result.json and prepares the
            folder; tfamp's trainer does so itself, with more in them.

    Raises:
        ValueError: `log_every` is below 1; or, when training begins, the folder holds a completed
            run or cannot be written.
    """

    def __init__(
        self,
        run_directory: str | os.PathLike[str],
        *,
        log_every: int = 10,
        batch_size: int | None = None,
        overwrite: bool = False,
        owns_result: bool = True,
    ) -> None:
        super().__init__()
        if log_every < 1:
            raise ValueError(f"log_every={log_every}: it must be 1 or more.")
        self.directory = RunDirectory(run_directory, terms=ARGUMENTS if owns_result else FLAGS)
        self.log_every = log_every
        self.batch_size = batch_size
        self.hparams: dict[str, str | int | float] | None = None
        self.clock = StepClock()
        self.step = 0
        self.epoch_times: list[float] = []
        self.device_peak = 0
        self.first_call_seconds: float | None = None
        self._overwrite = overwrite
        self._owns_result = owns_result
        self._files: RowFiles | None = None
        self._books: HistoryBooks | None = None
        self._is_open = False

    # Keras's hooks, in the order in which they are called.

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the files and warns of float16 that nothing scales."""
        if self._owns_result:
            replaced = self.directory.prepare(self._overwrite)
            if replaced is not None:
                print(f"What an earlier run left in {self.directory.path} is in {replaced}.")
            version = {"schema_version": records.SCHEMA_VERSION}
            self.directory.write_config(version | {"command_line": sys.argv})
        self._files = RowFiles(self.directory, self.hparams)
        self._is_open = True
        self._device = memory.training_device()
        self._books = books_of(self.model.optimizer, self.step)
        self._mark_every = self.log_every
        if self._books:
            executes = max(1, getattr(self.model, "steps_per_execution", 1))
            self._mark_every = min(self.log_every, self._books.longest_wait(executes))
        warn_if_unscaled(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the epoch's clock and its memory peak."""
        self._epoch = epoch
        self._epoch_start_step = self._marked = self.step
        self._mean_at_mark = (0, {"loss": 0.0, "accuracy": 0.0})
        self._is_epoch_open = True
        memory.reset_device_peak(self._device)
        self._epoch_start = time.perf_counter()
        if self.first_call_seconds is not None:
            self.clock.start(self.step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts; at a mark reads what the device has kept and writes it down."""
        self.step = self._epoch_start_step + batch + 1
        if self.first_call_seconds is None:
            # The first call traced and compiled: it is waited for, and no clock ran.
            self._wait(logs)
            self.first_call_seconds = time.perf_counter() - self._epoch_start
            self.clock.start(self.step)
        if self.step - self._marked >= self._mark_every:
            self._mark(logs)
        self._last_logs = logs

    def on_test_begin(self, logs: Any = None) -> None:
        """Ends the epoch's training before evaluation takes the device."""
        self._end_epoch_training()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the epoch's row."""
        self._end_epoch_training()
        logs = dict(logs or {})
        values: dict[str, Any] = {}
        _put(values, records.TRAIN_LOSS, logs.get("loss"))
        _put(values, records.TRAIN_ACCURACY, logs.get(_accuracy_name(logs)))
        _put(values, records.VALIDATION_LOSS, logs.get("val_loss"))
        _put(values, records.VALIDATION_ACCURACY, logs.get(f"val_{_accuracy_name(logs)}"))
        values |= self._epoch_figures
        if self._files:
            self._files.write_epoch(self.step, epoch, values)

    def on_train_end(self, logs: Any = None) -> None:
        """Writes the last rows and, in a script of the user's, the result."""
        self.close()
        if self._owns_result:
            status = {"schema_version": records.SCHEMA_VERSION, "status": "completed"}
            self.directory.write_result(status | {"error": None} | self.result())

    # What others ask.

    def event(self, name: str, values: dict[str, Any] | None = None) -> None:
        """Writes an event row, after the rows of the steps before it."""
        if self._is_open and self._files:
            try:
                self._write_steps({})
            finally:
                epoch = getattr(self, "_epoch", 0)
                self._files.write_event(self.step, epoch, name, values or {})

    def close(self) -> None:
        """Writes the steps that are still on the device and closes the files; safe to repeat."""
        if not self._is_open or self._files is None:
            return
        self._is_open = False
        try:
            self._write_steps({})
        finally:
            self._files.close()
            if self._books:
                self._books.close()

    @property
    def last_row(self) -> dict[str, Any]:
        """The figures of the last step that was read; empty before the first."""
        return self._files.last_step_row if self._files else {}

    @property
    def last_epoch(self) -> dict[str, Any]:
        """The figures of the last epoch; empty before its end."""
        return self._files.last_epoch_row if self._files else {}

    def result(self) -> dict[str, Any]:
        """The figures of the run so far, under result.json's names; see CONTRIBUTING.md."""
        step_time = self.clock.summary()
        optimizer = self._books.optimizer if self._books else None
        figures = {
            "epochs": len(self.epoch_times),
            "steps_attempted": optimizer.steps_attempted if optimizer else self.step,
            "steps_applied": optimizer.steps_applied if optimizer else None,
            "validation_accuracy": self.last_epoch.get(records.VALIDATION_ACCURACY),
            "validation_loss": self.last_epoch.get(records.VALIDATION_LOSS),
            "train_loss": self.last_epoch.get(records.TRAIN_LOSS),
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
            "loss_scale": self._books.loss_scale_result() if self._books else None,
        }
        return {
            name: records.to_json_number(value) if isinstance(value, float) else value
            for name, value in figures.items()
        }

    # How it is done.

    def _wait(self, logs: Any) -> None:
        for value in (logs or {}).values():
            np.asarray(value)

    def _mark(self, logs: Any) -> None:
        self._wait(logs)
        window = self.clock.mark(self.step)
        figures = self._window_means(logs)
        if window is not None:
            figures[records.STEP_TIME] = window.step_ms
            if self.batch_size:
                figures[records.THROUGHPUT] = 1e3 * self.batch_size / window.step_ms
        self._write_steps(figures)
        if self._files:
            self._files.flush()
        self._marked = self.step
        if self._books:
            self._books.raise_if_collapsed()

    def _window_means(self, logs: Any) -> dict[str, float]:
        # Keras reports means since the epoch began; two of them give the mean between.
        done = self.step - self._epoch_start_step
        before, means_before = self._mean_at_mark
        names = {"loss": "loss", "accuracy": _accuracy_name(logs or {})}
        means = {key: float(logs[name]) for key, name in names.items() if name in (logs or {})}
        self._mean_at_mark = (done, means)
        rows = {"loss": records.TRAIN_LOSS, "accuracy": records.TRAIN_ACCURACY}
        return {
            rows[key]: (mean * done - means_before.get(key, 0.0) * before) / (done - before)
            for key, mean in means.items()
            if key == "accuracy" or not (self._books and self._books.notes_losses)
        }

    def _write_steps(self, figures: dict[str, float]) -> None:
        # Figures of the window stand in the row of its last step.
        rows = list(self._books.read()) if self._books else [(self.step, {})]
        if rows and figures:
            rows[-1] = (rows[-1][0], rows[-1][1] | figures)
        for step, row in rows:
            if row and self._files:
                self._files.write_step(step, self._epoch, row)

    def _end_epoch_training(self) -> None:
        if not getattr(self, "_is_epoch_open", False):
            return
        self._is_epoch_open = False
        if self.step > self._marked:
            self._mark(self._last_logs)
        self.clock.pause()
        current, peak = memory.device_bytes(self._device)
        self.device_peak = max(self.device_peak, peak)
        seconds = time.perf_counter() - self._epoch_start
        self.epoch_times.append(seconds)
        self._epoch_figures: dict[str, Any] = {
            records.EPOCH_TIME: seconds,
            records.DEVICE_PEAK: peak,
            records.DEVICE_CURRENT: current,
            records.HOST_PEAK: memory.host_peak_rss_bytes(),
        }


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        values[name] = float(value)


def _accuracy_name(logs: Any) -> str:
    """The name under which a model reports its accuracy, `accuracy` for most."""
    for name in ("accuracy", "acc"):
        if name in logs:
            return name
    return next((n for n in logs if n.endswith("_accuracy") and not n.startswith("val_")), "")
