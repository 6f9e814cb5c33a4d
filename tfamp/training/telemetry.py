"""The telemetry callback: what precision did, step by step, without waiting for each step."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Any

import keras
import numpy as np

from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.precision.unscaled import warn_if_unscaled
from tfamp.run import dashboard, memory, records
from tfamp.run.clock import StepClock
from tfamp.run.directory import RunDirectory, write_json

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
}


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
        self.directory = RunDirectory(run_directory)
        self.log_every = log_every
        self.batch_size = batch_size
        self.clock = StepClock()
        self.step = 0
        self.epoch_times: list[float] = []
        self.device_peak = 0
        self.first_skips: list[int] = []
        self.scales_seen: list[float] = []
        self.last_row: dict[str, Any] = {}
        self.last_epoch: dict[str, Any] = {}
        self.first_call_seconds: float | None = None
        self._overwrite = overwrite
        self._owns_result = owns_result
        self._is_open = False

    # Keras's hooks, in the order in which they are called.

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the files and warns of float16 that nothing scales."""
        if self._owns_result:
            self.directory.prepare(self._overwrite)
            version = {"schema_version": records.SCHEMA_VERSION}
            write_json(self.directory.config, version | {"command_line": sys.argv})
        self._rows = records.RowWriter(self.directory.metrics)
        self._train = dashboard.ScalarWriter(self.directory.path / "train")
        self._validation = dashboard.ScalarWriter(self.directory.path / "validation")
        self._is_open = True
        self._device = memory.training_device()
        optimizer = self.model.optimizer
        self._optimizer = optimizer if isinstance(optimizer, LossScaleOptimizer) else None
        self._recorded_before = self._optimizer.history()[0] if self._optimizer else 0
        self._recorded = self._recorded_before
        executes = max(1, getattr(self.model, "steps_per_execution", 1))
        self._mark_every = self.log_every
        if self._optimizer:
            room = self._optimizer.history_size - executes + 1
            if room < 1:
                raise ValueError(
                    f"steps_per_execution={executes} exceeds the optimizer's history of "
                    f"{self._optimizer.history_size} steps. Set history={executes} or more "
                    "on LossScaleOptimizer."
                )
            self._mark_every = min(self.log_every, room)
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
        self._rows.write("epoch", self.step, epoch, values)
        self._rows.flush()
        train = {n: v for n, v in values.items() if not n.startswith(("validation/", "train/"))}
        self._train.write(self.step, train)
        self._train.flush()
        self._validation.write(
            self.step, {n: v for n, v in values.items() if n.startswith("validation/")}
        )
        self._validation.flush()
        self.last_epoch = values

    def on_train_end(self, logs: Any = None) -> None:
        """Writes the last rows and, in a script of the user's, the result."""
        self.close()
        if self._owns_result:
            status = {"schema_version": records.SCHEMA_VERSION, "status": "completed"}
            write_json(self.directory.result, status | {"error": None} | self.result())

    # What others ask.

    def event(self, name: str, values: dict[str, Any] | None = None) -> None:
        """Writes an event row, after the rows of the steps before it."""
        if self._is_open:
            try:
                self._write_steps({})
            finally:
                epoch = getattr(self, "_epoch", 0)
                self._rows.write("event", self.step, epoch, {"event": name} | (values or {}))

    def close(self) -> None:
        """Writes the steps that are still on the device and closes the files; safe to repeat."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._write_steps({})
        finally:
            self._rows.close()
            self._train.close()
            self._validation.close()

    def result(self) -> dict[str, Any]:
        """The figures of the run so far, under result.json's names; see CONTRIBUTING.md."""
        step_time = self.clock.summary()
        optimizer = getattr(self, "_optimizer", None)
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
            "loss_scale": self._loss_scale_result(optimizer),
        }
        return {
            name: records.to_json_number(value) if isinstance(value, float) else value
            for name, value in figures.items()
        }

    def _loss_scale_result(self, optimizer: LossScaleOptimizer | None) -> dict[str, Any] | None:
        if optimizer is None or not optimizer.is_scaling:
            return None
        seen = [*self.scales_seen, optimizer.scale]
        return {
            "mode": "dynamic" if optimizer.dynamic else "static",
            "initial": optimizer.initial_scale,
            "final": optimizer.scale,
            "min": min(seen),
            "max": max(seen),
            "skipped": optimizer.skipped_total,
            "first_skips": self.first_skips,
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
        self._rows.flush()
        self._marked = self.step
        if self._optimizer and self._optimizer.is_scaling:
            self._optimizer.raise_if_collapsed()

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
            if key == "accuracy" or self._optimizer is None
        }

    def _write_steps(self, figures: dict[str, float]) -> None:
        if self._optimizer is None:
            if figures:
                self._write_step(self.step, figures)
            return
        count, columns = self._optimizer.history(self._recorded)
        new = len(columns["loss"])
        first = count - new - self._recorded_before + 1
        for i in range(new):
            row = self._step_row({name: column[i] for name, column in columns.items()})
            step = first + i
            if row.get(records.SKIPPED_IN_A_ROW) and columns["is_update"][i]:
                self.first_skips = [*self.first_skips, step][:10]
            self._write_step(step, row | figures if i == new - 1 else row)
        self._recorded = count

    def _step_row(self, entry: dict[str, np.float32]) -> dict[str, Any]:
        row: dict[str, Any] = {name: float(entry[key]) for key, name in _COLUMNS.items()}
        if not entry["is_update"]:
            del row[records.GRADIENT_NORM]
        # NaN where the optimizer does not count, or has only accumulated.
        shares = {name: float(entry[key]) for key, name in _GRADIENT_SHARES.items()}
        row |= {name: share for name, share in shares.items() if not math.isnan(share)}
        if self._optimizer and self._optimizer.is_scaling:
            row[records.SCALE] = float(entry["scale"])
            row |= {name: int(entry[key]) for key, name in _SCALE_COUNTERS.items()}
            self.scales_seen = [
                min([*self.scales_seen[:1], row[records.SCALE]]),
                max([*self.scales_seen[1:], row[records.SCALE]]),
            ]
        return row

    def _write_step(self, step: int, row: dict[str, Any]) -> None:
        self._rows.write("step", step, self._epoch, row)
        self._train.write(step, row)
        self.last_row = row

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
