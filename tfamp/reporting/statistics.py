"""Means and 95% intervals over few runs: Student's t, as a handful of seeds needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure over `n` runs.

    Attributes:
        value: The mean, or the geometric mean.
        low: Lower end of the 95% interval; None where one run gives none.
        high: Its upper end.
        n: Runs, or pairs of runs.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def mean(values: Sequence[float]) -> Estimate | None:
    """The mean and its t interval; None for no values.

    A non-finite value among them makes a mean that is not finite, without an interval.
    """
    n = len(values)
    if n == 0:
        return None
    numbers = np.asarray(values, np.float64)
    if not np.isfinite(numbers).all():
        with np.errstate(invalid="ignore"):
            return Estimate(float(numbers.mean()), None, None, n)
    centre = math.fsum(values) / n
    if n == 1:
        return Estimate(centre, None, None, 1)
    error = float(numbers.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error
    return Estimate(centre, centre - reach, centre + reach, n)


def geometric_mean(values: Sequence[float]) -> Estimate | None:
    """The mean and t interval of the logarithms: for what is above 0, such as times.

    The interval stays above 0, and a ratio of two such means is the mean of the ratios.
    """
    found = mean([math.log(value) for value in values])
    if found is None:
        return None
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return Estimate(math.exp(found.value), low, high, found.n)


def mean_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate | None:
    """The geometric mean of paired ratios, so that a over b and b over a agree.

    Args:
        numerators: Positive numbers.
        denominators: Positive numbers, one for each numerator.
    """
    return geometric_mean([a / b for a, b in zip(numerators, denominators, strict=True)])


def mean_difference(values: Sequence[float], baselines: Sequence[float]) -> Estimate | None:
    """The mean of paired differences, with its t interval."""
    return mean([value - base for value, base in zip(values, baselines, strict=True)])
