"""The rows a loop writes and a report reads: their figures, JSON form, one writer, one reader.

Needs no TensorFlow. A figure that was not measured is absent, never zero. JSON has no NaN and no
infinity: as in protobuf's JSON they are the strings "NaN", "Infinity", "-Infinity"; read as floats.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

SCHEMA_VERSION = 1

ROW_KINDS = ("step", "epoch", "event", "underflow")
Kind = Literal["number", "count", "total"]
Measured = Literal["always", "losses", "updates", "counted", "scaling"]


class Figure(str):
    """A figure of the rows: a string, its name, that knows what else there is to know of it.

    A new one is declared below, measured where it arises, and used where a report shows it. Rows,
    an optimizer's history, TensorBoard and the table in CONTRIBUTING.md follow the declaration.

    Attributes:
        rows: The rows that have it: `"step"`, `"epoch"` or both, and which of them.
        what: What it is.
        unit: What it is counted in; empty for a plain number.
        column: The column of an optimizer's history that it comes from, which has an entry for
            every step; empty where the host measures it.
        kind: `"number"`; or `"count"`, a whole one; or `"total"`, a count that goes on over all
            phases of a run, and that the optimizer has under the column's name too.
        measured: Which entries of the history have it: all (`"always"`), those of steps whose
            loss was seen (`"losses"`), updates (`"updates"`), those that are not NaN
            (`"counted"`), or all of an optimizer that scales (`"scaling"`).
        chart: TensorBoard's heading and chart that draw it, in the order of the declarations.
        log2_tag: A tag with its logarithm to base 2, which TensorBoard draws in its place: its
            custom scalars have no logarithmic axis, where halvings and doublings look alike.
    """

    rows: str
    what: str
    unit: str
    column: str
    kind: Kind
    measured: Measured
    chart: tuple[str, str] | None
    log2_tag: str

    def __new__(
        cls,
        name: str,
        rows: str,
        what: str,
        *,
        unit: str = "",
        column: str = "",
        kind: Kind = "number",
        measured: Measured = "always",
        chart: tuple[str, str] | None = None,
        log2_tag: str = "",
    ) -> Figure:
        """A string cannot be given attributes by `__init__`: it is made here."""
        figure = super().__new__(cls, name)
        figure.rows, figure.what, figure.unit = rows, what, unit
        figure.column, figure.kind, figure.measured = column, kind, measured
        figure.chart, figure.log2_tag = chart, log2_tag
        return figure

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, as of a row, is the name alone."""
        return str, (str(self),)


_LEARNED, _SCALED, _COST = "Did it learn", "What loss scaling did", "What it cost"
_TIME = (_COST, "Step time (ms)")
_ACCURACY, _LOSS, _SKIPS = (_LEARNED, "Accuracy"), (_LEARNED, "Loss"), (_SCALED, "Skipped steps")

VALIDATION_ACCURACY = Figure(
    "validation/accuracy", "epoch that is validated", "of the validation set", chart=_ACCURACY
)
TRAIN_ACCURACY = Figure(
    "train/accuracy",
    "step at marks, epoch",
    "mean since the last mark; the epoch's",
    chart=_ACCURACY,
)
VALIDATION_LOSS = Figure(
    "validation/loss", "epoch that is validated", "of the validation set", chart=_LOSS
)
TRAIN_LOSS = Figure(
    "train/loss",
    "step, epoch",
    "unscaled; a step's own, an epoch's mean",
    column="loss",
    measured="losses",
    chart=_LOSS,
)
LEARNING_RATE = Figure(
    "optimizer/learning_rate", "step", "the one that the step used", column="learning_rate"
)
SCALE = Figure(
    "scale/value",
    "step",
    "the scale that the step's loss was multiplied by",
    column="scale",
    measured="scaling",
    chart=(_SCALED, "Loss scale, as a power of two (log2)"),
    log2_tag="scale/log2",
)
GROWTH_COUNTER = Figure(
    "scale/growth_counter",
    "step",
    "clean steps since the scale last moved, after the step",
    unit="steps",
    column="growth_counter",
    kind="count",
    measured="scaling",
)
SKIPPED_TOTAL = Figure(
    "scale/skipped_total",
    "step",
    "skips of the run, after the step",
    unit="steps",
    column="skipped_total",
    kind="total",
    measured="scaling",
    chart=_SKIPS,
)
SKIPPED_IN_A_ROW = Figure(
    "scale/skipped_in_a_row",
    "step",
    "skips since the last applied update, after the step",
    unit="steps",
    column="skipped_in_a_row",
    kind="count",
    measured="scaling",
)
SKIPPED_NON_FINITE_LOSS = Figure(
    "scale/skipped_non_finite_loss",
    "step",
    "those of `skipped_total` whose own loss was NaN or infinite, which leave the scale alone",
    unit="steps",
    column="skipped_non_finite_loss",
    kind="total",
    measured="scaling",
    chart=_SKIPS,
)
GRADIENT_NORM = Figure(
    "grad/global_norm",
    "step that updates",
    "unscaled, before the optimizer clips, of the whole gradient that it got",
    column="grad_norm",
    measured="updates",
    chart=(_SCALED, "Gradient norm, unscaled"),
)
GRADIENT_ZEROS = Figure(
    "grad/zero_fraction",
    "step that updates or skips, of a float16 run",
    "share (0 to 1) of the gradient's entries, scaled as they are, that are exactly zero; of an "
    "embedding the rows that were looked up, with accumulation all",
    column="grad_zero_fraction",
    measured="counted",
    chart=(_SCALED, "Share of zero gradients"),
)
GRADIENT_NON_FINITE = Figure(
    "grad/non_finite_fraction",
    "step that updates or skips, of a float16 run",
    "the same share of entries that are NaN or infinite",
    column="grad_non_finite_fraction",
    measured="counted",
)
UNDERFLOW = Figure(
    "underflow/lost_fraction",
    "step that the underflow meter looks at",
    "share (0 to 1) of the gradient's entries, of the layers that can be judged, that float16 lost",
    chart=(_SCALED, "Share of gradient entries that float16 loses"),
)
STEP_TIME = Figure(
    "time/step_ms", "step at marks", "mean since the last mark", unit="ms", chart=_TIME
)
EPOCH_TIME = Figure(
    "time/epoch_sec", "epoch", "training only; the first includes tracing and compiling", unit="s"
)
DEVICE_PEAK = Figure(
    "memory/device_peak_bytes",
    "epoch",
    "`get_memory_info` of the training device, peak since the epoch began",
    unit="bytes",
    chart=(_COST, "Device memory peak (bytes)"),
)
DEVICE_CURRENT = Figure(
    "memory/device_current_bytes", "epoch", "the same as its training ends", unit="bytes"
)
HOST_PEAK = Figure("memory/host_peak_rss_bytes", "epoch", "since the process began", unit="bytes")
THROUGHPUT = Figure(
    "throughput/examples_per_sec",
    "step at marks",
    "mean since the last mark",
    unit="examples/s",
    chart=(_COST, "Examples per second"),
)

FIGURES: tuple[Figure, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Figure)
)


def figures_of_history() -> dict[str, Figure]:
    """The figures that an optimizer's history holds, by their columns there."""
    return {figure.column: figure for figure in FIGURES if figure.column}


def reported(room: str, metric: str) -> str:
    """A metric that a model reports, such as `train/mae`; `room` is train or validation."""
    return f"{room}/{metric}"


def of_optimizer(name: str, optimizer: str) -> str:
    """The name of a figure of one of several optimizers, such as `scale/value/generator`."""
    return f"{name}/{optimizer}" if optimizer else name


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json_number(value: Any) -> Any:
    """A number as JSON can hold it, also within dicts and lists; anything else passes through."""
    if isinstance(value, dict):
        return {name: to_json_number(each) for name, each in value.items()}
    if isinstance(value, list):
        return [to_json_number(each) for each in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def from_json_number(value: Any) -> Any:
    """The inverse of `to_json_number`."""
    if isinstance(value, dict):
        return {name: from_json_number(each) for name, each in value.items()}
    if isinstance(value, list):
        return [from_json_number(each) for each in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


class RowWriter:
    """Appends rows to a metrics.jsonl file, one JSON object a line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "a", encoding="utf-8")

    def write(self, kind: str, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Writes one row.

        Args:
            kind: One of `ROW_KINDS`.
            step: Steps done when the row holds, counted from 1 over the whole run.
            epoch: The epoch, counted from 0.
            values: The figures by name; for an event its `"event"` name too.
        """
        row = {"kind": kind, "step": step, "epoch": epoch, **to_json_number(dict(values))}
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
        rows.append(from_json_number(row))
    return rows
