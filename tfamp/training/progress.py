"""The progress bar of both loops: loss, accuracy, loss scale and skips."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras

from tfamp.run import records
from tfamp.training.telemetry import PrecisionTelemetry


class ProgressBar(keras.callbacks.Callback):
    """Shows what the telemetry last read; reads nothing from the device itself.

    On a terminal a bar moves at each mark; elsewhere a line is printed at the end of each epoch
    and at most every ten seconds in between.

    Args:
        telemetry: Where the figures come from; it must come before this in the callbacks.
        epochs: Epochs in all.
        steps_per_epoch: Steps in each.
    """

    def __init__(self, telemetry: PrecisionTelemetry, epochs: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._telemetry = telemetry
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._is_terminal = sys.stdout.isatty()

    def on_train_begin(self, logs: Any = None) -> None:
        """Says why the first step takes long."""
        how = "compiling with XLA" if self.model.jit_compile else "tracing"
        print(f"First step: {how}, this takes a while ...", flush=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts a bar."""
        self._epoch = epoch
        self._shown: dict[str, Any] | None = None
        self._last_line = time.monotonic()
        if self._is_terminal:
            print(f"Epoch {epoch + 1}/{self._epochs}")
            self._bar = keras.utils.Progbar(self._steps, stateful_metrics=["loss", "accuracy"])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows the last read figures, if they are new."""
        row = self._telemetry.last_row
        if not row or row is self._shown:
            return
        self._shown = row
        if self._is_terminal:
            values = self._figures(row)
            self._bar.stateful_metrics.update(name for name, _ in values)
            self._bar.update(min(batch + 1, self._steps), values, finalize=False)
        elif time.monotonic() - self._last_line > 10:
            self._last_line = time.monotonic()
            print(f"  step {batch + 1}/{self._steps}  {_joined(self._figures(row))}", flush=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Prints the epoch's line."""
        values = self._telemetry.last_epoch
        names = {
            "loss": records.TRAIN_LOSS,
            "accuracy": records.TRAIN_ACCURACY,
            "val_loss": records.VALIDATION_LOSS,
            "val_accuracy": records.VALIDATION_ACCURACY,
        }
        figures = [(short, values[name]) for short, name in names.items() if name in values]
        figures += self._scaling(self._telemetry.last_row)
        seconds = values.get(records.EPOCH_TIME, 0.0)
        if self._is_terminal:
            self._bar.stateful_metrics.update(name for name, _ in figures)
            self._bar.update(self._steps, figures, finalize=True)
        else:
            print(f"Epoch {epoch + 1}/{self._epochs}  {seconds:.1f} s  {_joined(figures)}")
        sys.stdout.flush()

    def _figures(self, row: dict[str, Any]) -> list[tuple[str, float]]:
        names = {"loss": records.TRAIN_LOSS, "accuracy": records.TRAIN_ACCURACY}
        shown = [(short, row[name]) for short, name in names.items() if name in row]
        return shown + self._scaling(row)

    def _scaling(self, row: dict[str, Any]) -> list[tuple[str, float]]:
        names = {"loss_scale": records.SCALE, "skipped": records.SKIPPED_TOTAL}
        return [(short, row[name]) for short, name in names.items() if name in row]


def _joined(figures: list[tuple[str, float]]) -> str:
    whole = ("loss_scale", "skipped")
    return "  ".join(f"{n} {v:.9g}" if n in whole else f"{n} {v:.4f}" for n, v in figures)
