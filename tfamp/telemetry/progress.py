"""The progress of both loops: one line that fits the terminal, or lines where there is none."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import keras

from tfamp.run import records
from tfamp.telemetry.callback import PrecisionTelemetry

# Redrawing more often than this costs time and cannot be read.
_SECONDS_BETWEEN = 0.1
_SECONDS_BETWEEN_LINES = 10.0
_BAR_COLUMNS = (10, 30)
# Below this the word "Epoch" takes the room of a figure.
_NARROW = 60


class ProgressBar(keras.callbacks.Callback):
    """Shows what the telemetry last read; reads nothing from the device itself.

    On a terminal a line moves at each mark and never wraps: the figures stand with the most
    important first, and the last ones are left out where there is no room. Elsewhere a line is
    printed at the end of each epoch and at most every ten seconds in between.

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
        self._line = OneLine(sys.stdout) if sys.stdout.isatty() else None

    def on_train_begin(self, logs: Any = None) -> None:
        """Says why the first step takes long."""
        how = "compiling with XLA" if self.model.jit_compile else "tracing"
        print(f"First step: {how}, this takes a while ...", flush=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts a line."""
        self._epoch = f"{epoch + 1}/{self._epochs}"
        self._done = 0
        self._shown: dict[str, Any] | None = None
        self._last = time.monotonic()
        if self._line:
            self._line.show([self._label(), self._position()])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows the last read figures, if they are new."""
        row = self._telemetry.last_row
        self._done = self._telemetry.step_of_epoch
        if not row or row is self._shown:
            return
        since = time.monotonic() - self._last
        if self._line and (since > _SECONDS_BETWEEN or self._done == self._steps):
            self._draw(row)
        elif not self._line and since > _SECONDS_BETWEEN_LINES:
            print(f"  step {self._position()}  {_in_full(row)}", flush=True)
        else:
            return
        self._shown = row
        self._last = time.monotonic()

    def on_test_begin(self, logs: Any = None) -> None:
        """Says what the line waits for."""
        if self._line:
            parts = _short(self._telemetry.last_row, _OF_A_STEP)
            self._line.show([self._label(), "validating", *parts])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Prints the epoch's line."""
        row = self._telemetry.last_row
        # The scale and the skips as the last step left them.
        last = {name: row[name] for name in (records.SCALE, records.SKIPPED_TOTAL) if name in row}
        values = self._telemetry.last_epoch | last
        seconds = f"{values.get(records.EPOCH_TIME, 0.0):.1f} s"
        if self._line:
            self._line.show([self._label(), seconds, *_short(values, _OF_AN_EPOCH)])
            self._line.end()
        else:
            print(f"Epoch {self._epoch}  {seconds}  {_in_full(values)}", flush=True)

    def _draw(self, row: dict[str, Any]) -> None:
        parts = [self._label(), self._position(), *_short(row, _OF_A_STEP)]
        step_ms = row.get(records.STEP_TIME)
        if step_ms is not None:
            left = (self._steps - self._done) * step_ms / 1e3
            parts += [f"{_clock(left)} left", f"{step_ms:.{1 if step_ms < 100 else 0}f} ms/step"]
        if self._line:
            self._line.show(parts, bar_after=2, done=self._done / self._steps)

    def _label(self) -> str:
        return self._epoch if columns(sys.stdout) < _NARROW else f"Epoch {self._epoch}"

    def _position(self) -> str:
        return f"{self._done}/{self._steps}"


class OneLine:
    """A line of a terminal that is written over and over, and never wraps.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._written = 0

    def show(self, parts: Sequence[str], bar_after: int = 0, done: float = 0.0) -> None:
        """Writes as many of the parts as fit, in order, over what stands there.

        Args:
            parts: What to say, the most important first. The first is cut where it is too long.
            bar_after: Puts a bar behind so many parts, if all of them fit and there is room; 0
                draws none.
            done: How much of the bar is full, from 0 to 1.
        """
        # The last column stays free: some terminals wrap once it is written.
        room = columns(self._stream) - 1
        text = parts[0][:room]
        count = 1
        for part in parts[1:]:
            if len(text) + 2 + len(part) > room:
                break
            text += f"  {part}"
            count += 1
        least, most = _BAR_COLUMNS
        bar = min(most, room - len(text) - 2)
        if bar_after and count == len(parts) and bar >= least:
            head = "  ".join(parts[:bar_after])
            text = f"{head}  {_bar(done, bar)}{text[len(head) :]}"
        # Spaces over the rest of a longer line; escape sequences are not for every terminal.
        self._write("\r" + text.ljust(min(self._written, room)))
        self._written = len(text)

    def end(self) -> None:
        """Lets the line stand."""
        self._write("\n")
        self._written = 0

    def clear(self) -> None:
        """Takes away what stands in it; what is written next begins there."""
        self._write("\r" + " " * self._written + "\r")
        self._written = 0

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Told:
    """Tells what goes on while it is entered, a text at a time, and keeps out of what follows.

    On a terminal each text takes the place of the one before, and none is left at the end;
    elsewhere there is a line for one at most every ten seconds.
    """

    def __init__(self) -> None:
        self._line = OneLine(sys.stdout) if sys.stdout.isatty() else None
        self._last = -math.inf

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._line:
            self._line.clear()

    def __call__(self, text: str) -> None:
        """Tells one."""
        now = time.monotonic()
        if self._line:
            self._line.show([text])
        elif now - self._last > _SECONDS_BETWEEN_LINES:
            print(f"  {text}", flush=True)
            self._last = now


def columns(stream: TextIO) -> int:
    """How wide a terminal is now; 80 where it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


# On a terminal, the most important first: what drops out on the right can be read in TensorBoard.
_OF_A_STEP = {
    "loss": records.TRAIN_LOSS,
    "scale": records.SCALE,
    "skipped": records.SKIPPED_TOTAL,
    "acc": records.TRAIN_ACCURACY,
}
_OF_AN_EPOCH = {
    "loss": records.TRAIN_LOSS,
    "val_acc": records.VALIDATION_ACCURACY,
    "scale": records.SCALE,
    "skipped": records.SKIPPED_TOTAL,
    "acc": records.TRAIN_ACCURACY,
    "val_loss": records.VALIDATION_LOSS,
}
# In a file or a pipe, where there is room.
_IN_FULL = {
    "loss": records.TRAIN_LOSS,
    "accuracy": records.TRAIN_ACCURACY,
    "val_loss": records.VALIDATION_LOSS,
    "val_accuracy": records.VALIDATION_ACCURACY,
    "loss_scale": records.SCALE,
    "skipped": records.SKIPPED_TOTAL,
}
_WHOLE = ("loss_scale", "skipped")


def _in_full(values: dict[str, Any]) -> str:
    figures = [(short, values[name]) for short, name in _IN_FULL.items() if name in values]
    return "  ".join(f"{n} {v:.9g}" if n in _WHOLE else f"{n} {v:.4f}" for n, v in figures)


def _short(values: dict[str, Any], names: Mapping[str, str]) -> list[str]:
    write: dict[str, Callable[[Any], str]] = {"scale": _power_of_two, "skipped": str}
    return [
        f"{short} {write.get(short, _number)(values[name])}"
        for short, name in names.items()
        if name in values
    ]


def _number(value: float) -> str:
    """Six characters for what is usual, a few more for what is not."""
    size = abs(value)
    if size < 10 and (size >= 0.001 or size == 0):
        return f"{value:.4f}"
    return f"{value:.4g}"


def _power_of_two(value: float) -> str:
    mantissa, exponent = math.frexp(value)
    return f"2^{exponent - 1}" if mantissa == 0.5 else f"{value:.5g}"


def _bar(done: float, width: int) -> str:
    full = round(done * (width - 2))
    return f"[{'=' * full}{' ' * (width - 2 - full)}]"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
