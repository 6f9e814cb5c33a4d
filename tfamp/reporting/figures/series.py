"""What is drawn over a run: figures of several seeds at the same steps, and where they lie."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics

import numpy as np

from tfamp.reporting.groups import Variant
from tfamp.reporting.runs import FinishedRun
from tfamp.run import records

# Training losses are averaged over so many steps that about this many points are left.
_POINTS = 100


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure of some seeds at the same steps.

    Attributes:
        steps: Steps, int [points].
        values: float64 [seeds, points]; NaN where a seed's figure is missing or not finite.
    """

    steps: np.ndarray
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean over seeds; NaN where one of them is."""
        return self.values.mean(axis=0)

    @property
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest seed at each point, NaN where none is finite."""
        is_finite = np.isfinite(self.values)
        some = is_finite.any(axis=0)
        low = np.where(some, np.where(is_finite, self.values, np.inf).min(axis=0), np.nan)
        high = np.where(some, np.where(is_finite, self.values, -np.inf).max(axis=0), np.nan)
        return low, high


def training_clock(run: FinishedRun) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps and the seconds of training behind them, without tracing and compiling.

    It sums the windows of `time/step_ms`. The first call, which compiles, counts as the other
    steps of its window do. An epoch without a window takes its `time/epoch_sec`, or, where it is
    the first, which compiles, the run's median step.

    Returns:
        Steps and seconds at every mark, from step 0 on; None where the run has no times.
    """
    windows = [(step, ms) for step, ms in run.series(records.STEP_TIME) if 0 < ms < math.inf]
    whole = _epoch_step_ms(run)
    usual = statistics.median([ms for _, ms in windows] or list(whole.values()) or [math.nan])
    if math.isnan(usual):
        return None
    steps, seconds = [0], [0.0]
    ends = [(row["step"], whole.get(row["step"], usual)) for row in run.epoch_rows]
    # A window that ends an epoch comes before the epoch's end, which then adds nothing.
    for step, ms in sorted([*windows, *ends], key=lambda mark: mark[0]):
        if step > steps[-1]:
            seconds.append(seconds[-1] + (step - steps[-1]) * ms / 1e3)
            steps.append(step)
    return np.array(steps), np.array(seconds)


def _epoch_step_ms(run: FinishedRun) -> dict[int, float]:
    """Milliseconds a step by the step that ends an epoch, of the epochs after the first."""
    rows = run.epoch_rows
    return {
        row["step"]: 1e3 * row[records.EPOCH_TIME] / (row["step"] - before["step"])
        for before, row in itertools.pairwise(rows)
        if 0 < row.get(records.EPOCH_TIME, math.nan) < math.inf and row["step"] > before["step"]
    }


def training_loss(variant: Variant) -> tuple[Curve | None, int]:
    """The loss in means of some steps, and how many."""
    series = [dict(run.series(records.TRAIN_LOSS)) for run in variant.runs]
    last = max((step for losses in series for step in losses), default=0)
    if not last:
        return None, 1
    bin_steps = max(1, math.ceil(last / _POINTS))
    ends = np.arange(bin_steps, last + bin_steps, bin_steps)
    values = np.full((len(series), len(ends)), np.nan)
    for row, losses in zip(values, series, strict=True):
        for index, end in enumerate(ends):
            inside = [losses[s] for s in range(end - bin_steps + 1, end + 1) if s in losses]
            # A NaN among them makes the mean NaN: the gap is where the loss broke.
            if inside and all(map(math.isfinite, inside)):
                row[index] = math.fsum(inside) / len(inside)
    return Curve(np.minimum(ends, last), values), bin_steps


def at_rows(variant: Variant, name: str, kind: str, factor: float = 1.0) -> Curve | None:
    """A figure at the rows that have it, times a factor; None where none has.

    Args:
        variant: The runs.
        name: The figure, by its name in the rows.
        kind: `"step"` or `"epoch"`.
        factor: 100 for percent.
    """
    rows = [
        {row["step"]: factor * row[name] for row in run.rows if row["kind"] == kind and name in row}
        for run in variant.runs
    ]
    steps = sorted({step for seed in rows for step in seed})
    if not steps:
        return None
    values = np.array([[seed.get(step, math.nan) for step in steps] for seed in rows])
    values[~np.isfinite(values)] = np.nan
    return Curve(np.array(steps), values)


@dataclasses.dataclass(frozen=True)
class Break:
    """Where a run's loss stops being a number.

    Attributes:
        seed: The run's seed, None where a script set none.
        step: The first step whose loss is NaN or infinite.
        word: `NaN` or `infinite`.
        count: How many of its losses, of steps and of epochs, are so.
    """

    seed: int | None
    step: int
    word: str
    count: int


def breaks(variant: Variant) -> list[Break]:
    """The seeds whose training or validation loss is not finite somewhere."""
    found = []
    for run in variant.runs:
        broken = [
            (row["step"], row[name])
            for row in run.rows
            for name in (records.TRAIN_LOSS, records.VALIDATION_LOSS)
            if not math.isfinite(row.get(name, 0.0))
        ]
        if broken:
            step, loss = min(broken, key=lambda entry: entry[0])
            word = "NaN" if math.isnan(loss) else "infinite"
            found.append(Break(run.seed, step, word, len(broken)))
    return found


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a step of a variant lies on the axis: the step itself, or the seeds' mean seconds."""

    clocks: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, variant: Variant, over_time: bool) -> Place | None:
        """The place of a variant; None where its times were not measured."""
        if not over_time:
            return cls(())
        clocks = [training_clock(run) for run in variant.runs]
        known = tuple(clock for clock in clocks if clock is not None)
        return cls(known) if known else None

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        """Steps or seconds, as many as there are steps."""
        if not self.clocks:
            return steps
        return np.mean([np.interp(steps, *clock) for clock in self.clocks], axis=0)
