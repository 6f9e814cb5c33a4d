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


def mean_share(shares: Sequence[float]) -> Estimate | None:
    """The mean of shares from 0 to 1, such as accuracies, with an interval that stays there.

    The t interval is that of arcsin(sqrt(share)), whose spread hardly depends on where the share
    lies (Bartlett 1936), turned back. It is the t interval of the shares where they lie close
    together in the middle, shrinks towards 0 and 1, and has a value at both, where the logit has
    none. A bootstrap of two or three seeds would reach from the lowest to the highest only, which
    misses the true mean in a half and a quarter of cases.
    """
    found = mean(shares)
    if found is None or found.low is None or min(shares) < 0.0 or max(shares) > 1.0:
        return found
    angles = mean([math.asin(math.sqrt(share)) for share in shares])
    assert angles is not None and angles.low is not None and angles.high is not None
    low, high = (
        math.sin(min(max(end, 0.0), math.pi / 2)) ** 2 for end in (angles.low, angles.high)
    )
    # The angles' mean is not quite the angle of the mean.
    return Estimate(found.value, min(low, found.value), max(high, found.value), found.n)


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


def mean_share_difference(values: Sequence[float], baselines: Sequence[float]) -> Estimate | None:
    """The same of shares from 0 to 1: no interval reaches beyond -1 and 1."""
    found = mean_difference(values, baselines)
    if found is None or found.low is None or found.high is None or abs(found.value) > 1.0:
        return found
    return dataclasses.replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))
