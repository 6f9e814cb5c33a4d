"""What is measured of each run, and averaged over the seeds of a precision."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from tfamp.reporting import estimates
from tfamp.reporting.estimates import Estimate
from tfamp.reporting.runs import FinishedRun


def epoch_seconds(run: FinishedRun) -> float | None:
    """The median epoch after the first, which compiles; the first where it is the only one."""
    seconds = run.figures.epoch_time_sec
    return statistics.median(seconds[1:] or seconds) if seconds else None


# By the name in report.json, where each comes from.
MEASUREMENTS: dict[str, Callable[[FinishedRun], float | None]] = {
    "first_call_sec": lambda run: run.figures.first_call_sec,
    "epoch_time_sec": epoch_seconds,
    "step_time_ms": lambda run: time.median if (time := run.figures.step_time_ms) else None,
    "step_time_p95_ms": lambda run: time.p95 if (time := run.figures.step_time_ms) else None,
    "examples_per_sec": lambda run: run.figures.examples_per_sec,
    "device_peak_bytes": lambda run: run.figures.device_peak_bytes,
    "host_peak_rss_bytes": lambda run: run.figures.host_peak_rss_bytes,
    "validation_accuracy": lambda run: run.figures.validation_accuracy,
    "validation_loss": lambda run: run.figures.validation_loss,
    "train_loss": lambda run: run.figures.train_loss,
}

# How each is averaged; times, rates and sizes, which are above 0, by their logarithms.
_MEANS: dict[str, Callable[[Sequence[float]], Estimate | None]] = {
    "validation_accuracy": estimates.mean_share,
    "validation_loss": estimates.mean,
    "train_loss": estimates.mean,
}


def mean(name: str, runs: Iterable[FinishedRun]) -> Estimate | None:
    """One of `MEASUREMENTS` over the seeds; None where no run has it."""
    values = [value for value in map(MEASUREMENTS[name], runs) if value is not None]
    return _MEANS.get(name, estimates.geometric_mean)(values)


def pairs(
    name: str, runs: Iterable[tuple[FinishedRun, FinishedRun]]
) -> tuple[list[float], list[float]]:
    """One of `MEASUREMENTS` of pairs of runs, where both have it: of the first, of the second."""
    read = MEASUREMENTS[name]
    known = [(read(first), read(second)) for first, second in runs]
    found = [(a, b) for a, b in known if a is not None and b is not None]
    return [a for a, _ in found], [b for _, b in found]
