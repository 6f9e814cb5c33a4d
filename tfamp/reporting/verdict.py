"""The verdict on a comparison, in three sentences: faster, smaller, as accurate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfamp.reporting.comparison import Group, Variant
from tfamp.reporting.statistics import Estimate

# Two figures that agree to so much are the same: a ratio's distance from 1, or a share's from 0.
_SAME = 1e-9

UNKNOWN = "unknown"
WITHIN_NOISE = "within noise"
THE_SAME = "the same"


def speed(ratio: Estimate) -> str:
    """`faster`, `slower`, `within noise`, or `unknown` where one seed gives no interval."""
    return _judge(ratio, 1.0, "faster", "slower")


def memory(ratio: Estimate) -> str:
    """`smaller`, `larger`, `the same`, `within noise` or `unknown`."""
    return _judge(ratio, 1.0, "larger", "smaller")


def accuracy(difference: Estimate) -> str:
    """`higher`, `lower`, `the same`, `within noise` or `unknown`."""
    return _judge(difference, 0.0, "higher", "lower")


def _judge(estimate: Estimate, neutral: float, above: str, below: str) -> str:
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return UNKNOWN
    if max(abs(low - neutral), abs(high - neutral)) <= _SAME:
        return THE_SAME
    if low <= neutral <= high:
        return WITHIN_NOISE
    return above if estimate.value > neutral else below


def sentences(variant: Variant, group: Group) -> list[str] | None:
    """Three sentences on a variant against its group's baseline; None where there is none.

    A figure that was not measured says so in its sentence.
    """
    comparison, baseline = variant.comparison, group.baseline
    if comparison is None or baseline is None:
        return None
    name, base = variant.label, baseline.label
    seeds = comparison.seeds
    return [
        _speed_sentence(name, base, comparison.step_speedup, seeds),
        _memory_sentence(name, base, comparison.memory_ratio, group.device, seeds),
        _accuracy_sentence(variant, baseline, comparison.accuracy_difference, seeds),
    ]


def _speed_sentence(name: str, base: str, ratio: Estimate | None, seeds: Sequence[int]) -> str:
    if ratio is None:
        return f"Speed: {name} or {base} has no step time, so nothing can be said."
    return (
        f"Speed: {name} trained {ratio.value:.2f} times as fast as {base} "
        f"{_interval(ratio, seeds)}: {_ending(speed(ratio), ratio)}."
    )


def _memory_sentence(
    name: str, base: str, ratio: Estimate | None, device: str, seeds: Sequence[int]
) -> str:
    if ratio is None:
        return f"Memory: {name} or {base} has no device peak, so nothing can be said."
    return (
        f"Memory: {name} peaked at {ratio.value:.2f} times the memory of {base} on "
        f"{device.split(' ')[0]} {_interval(ratio, seeds)}: {_ending(memory(ratio), ratio)}."
    )


def _accuracy_sentence(
    variant: Variant, baseline: Variant, difference: Estimate | None, seeds: Sequence[int]
) -> str:
    name, base = variant.label, baseline.label
    if difference is None:
        return f"Accuracy: {name} or {base} has no validation accuracy, so nothing can be said."
    points = Estimate(
        100 * difference.value,
        None if difference.low is None else 100 * difference.low,
        None if difference.high is None else 100 * difference.high,
        difference.n,
    )
    ending = _ending(accuracy(difference), difference)
    return (
        f"Accuracy: {name} differs from {base} by {points.value:+.2f} points of validation "
        f"accuracy {_interval(points, seeds, signed=True)}: {ending}."
    )


def _ending(judged: str, estimate: Estimate) -> str:
    if judged != UNKNOWN:
        return judged
    if math.isfinite(estimate.value):
        return "one seed gives no interval, so this may be noise"
    return "a figure is not finite, so nothing can be said"


def _interval(estimate: Estimate, seeds: Sequence[int], signed: bool = False) -> str:
    if estimate.low is None or estimate.high is None:
        return f"(seed {seeds[0]} only)" if len(seeds) == 1 else "(no interval)"
    form = "+.2f" if signed else ".2f"
    return f"(95% interval {estimate.low:{form}} to {estimate.high:{form}}, {estimate.n} seeds)"
