"""The rows a loop writes and a report reads: names, JSON form, one writer, one reader.

Needs no TensorFlow. A figure that was not measured is absent, never zero. JSON has no NaN and
no infinity, so a non-finite figure is written as the string "NaN", "Infinity" or "-Infinity"
(as protobuf's JSON does) and read back as a float.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 1

TRAIN_LOSS = "train/loss"
TRAIN_ACCURACY = "train/accuracy"
VALIDATION_LOSS = "validation/loss"
VALIDATION_ACCURACY = "validation/accuracy"
LEARNING_RATE = "optimizer/learning_rate"
SCALE = "scale/value"
GROWTH_COUNTER = "scale/growth_counter"
SKIPPED_TOTAL = "scale/skipped_total"
SKIPPED_IN_A_ROW = "scale/skipped_in_a_row"
SKIPPED_NON_FINITE_LOSS = "scale/skipped_non_finite_loss"
GRADIENT_NORM = "grad/global_norm"
GRADIENT_ZEROS = "grad/zero_fraction"
GRADIENT_NON_FINITE = "grad/non_finite_fraction"
STEP_TIME = "time/step_ms"
EPOCH_TIME = "time/epoch_sec"
THROUGHPUT = "throughput/examples_per_sec"
DEVICE_PEAK = "memory/device_peak_bytes"
DEVICE_CURRENT = "memory/device_current_bytes"
HOST_PEAK = "memory/host_peak_rss_bytes"


def reported(room: str, metric: str) -> str:
    """A metric that a model reports, such as `train/mae`; `room` is train or validation."""
    return f"{room}/{metric}"


def of_optimizer(name: str, optimizer: str) -> str:
    """The name of a figure of one of several optimizers, such as `scale/value/generator`."""
    return f"{name}/{optimizer}" if optimizer else name


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json_number(value: float) -> float | int | str:
    """A number as JSON can hold it; a non-finite one becomes a string."""
    if isinstance(value, int) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def from_json_number(value: Any) -> Any:
    """The inverse of `to_json_number`; anything else passes through."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


class RowWriter:
    """Appends rows to a metrics.jsonl file, one JSON object a line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "a", encoding="utf-8")

    def write(self, kind: str, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Writes one row.

        Args:
            kind: `"step"`, `"epoch"` or `"event"`.
            step: Steps done when the row holds, counted from 1 over the whole run.
            epoch: The epoch, counted from 0.
            values: The figures by name; for an event its `"event"` name too.
        """
        row: dict[str, Any] = {"kind": kind, "step": step, "epoch": epoch}
        for name, value in values.items():
            row[name] = to_json_number(value) if isinstance(value, float) else value
        self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Hands every row to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file; writing after that is an error."""
        self._file.close()


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the rows of a metrics.jsonl file.

    The last line may be cut short, as a killed process leaves it: it is passed over.

    Raises:
        ValueError: Any other line is not a JSON object.
    """
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is no JSON object.")
        rows.append({name: from_json_number(value) for name, value in row.items()})
    return rows
