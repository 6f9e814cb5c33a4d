"""Histograms of exponents against the range of float16, at any loss scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from tfamp.run.fidelity import Histogram

_FLOAT16 = np.finfo(np.float16)
# log2 of the smallest number above zero, the smallest with all its bits, and the largest.
SMALLEST = math.log2(float(_FLOAT16.smallest_subnormal))
SMALLEST_NORMAL = math.log2(float(_FLOAT16.smallest_normal))
LARGEST = math.log2(float(_FLOAT16.max))


@dataclasses.dataclass(frozen=True)
class Shares:
    """What becomes of numbers in float16: shares of all of them, zeros included.

    Attributes:
        zero: Zero before.
        lost: Not zero, and rounded to it: below half of the smallest.
        subnormal: Kept with fewer bits, or rounded up to the smallest.
        normal: Kept with all bits.
        overflow: Infinite.
    """

    zero: float
    lost: float
    subnormal: float
    normal: float
    overflow: float

    @property
    def lost_of_non_zero(self) -> float:
        """Of those that are not zero, the share that becomes it."""
        return self.lost / (1 - self.zero) if self.zero < 1 else 0.0


def total(histograms: Iterable[Histogram | None]) -> Histogram | None:
    """All entries of several in one; None where there is none, or no entry."""
    found = [histogram for histogram in histograms if histogram is not None]
    counted = [histogram for histogram in found if histogram.counts]
    zeros = sum(histogram.zeros for histogram in found)
    if not counted:
        return Histogram(first=0, counts=(), zeros=zeros) if zeros else None
    first = min(histogram.first for histogram in counted)
    counts = [0] * (max(h.first + len(h.counts) for h in counted) - first)
    for histogram in counted:
        for index, count in enumerate(histogram.counts, start=histogram.first - first):
            counts[index] += count
    return Histogram(first=first, counts=tuple(counts), zeros=zeros)


def becomes(exponent: int, log2_scale: float) -> str:
    """Which of the shares the numbers of one exponent fall into, by the name of `Shares`.

    Those of one exponent fall together, but for the few above 65504 of the last one.
    """
    scaled = exponent + log2_scale
    if scaled + 1 <= SMALLEST - 1:
        return "lost"
    if scaled >= LARGEST:
        return "overflow"
    return "subnormal" if scaled < SMALLEST_NORMAL else "normal"


def shares(histogram: Histogram, log2_scale: float = 0.0) -> Shares:
    """The shares at a loss scale."""
    entries = histogram.zeros + sum(histogram.counts)
    found = dict.fromkeys(("lost", "subnormal", "normal", "overflow"), 0)
    for exponent, count in enumerate(histogram.counts, start=histogram.first):
        found[becomes(exponent, log2_scale)] += count
    return Shares(histogram.zeros / entries, **{k: n / entries for k, n in found.items()})
