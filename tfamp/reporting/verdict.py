"""The verdict on a comparison, in three sentences: faster, smaller, as accurate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfamp.reporting.estimates import Estimate
from tfamp.reporting.groups import Group, Variant, xla_words

# Two figures that agree to so much are the same: a ratio's distance from 1, or a share's from 0.
_SAME = 1e-9

UNKNOWN = "unknown"
WITHIN_NOISE = "within noise"
THE_SAME = "the same"


# The smallest effect that the report colours as good or bad, however sure it is that there is one:
# of speed and memory the ratio's distance from 1, of accuracy the difference of shares.
SMALLEST_RATIO = 0.05
SMALLEST_ACCURACY = 0.001
SLIGHTLY = "slightly "
# Words that say something good or bad of a variant; the others say neither.
_TONES = {
    "faster": "good",
    "smaller": "good",
    "higher": "good",
    "slower": "bad",
    "larger": "bad",
    "lower": "bad",
}


def tone(judged: str) -> str:
    """Whether a verdict is `good`, `bad` or `neutral`."""
    return _TONES.get(judged, "neutral")


def speed(ratio: Estimate) -> str:
    """`faster`, `slower`, either of them slightly, `within noise`, `the same`.

    `unknown` where one seed gives no interval.
    """
    return _judge_ratio(ratio, "faster", "slower")


def memory(ratio: Estimate) -> str:
    """`smaller`, `larger`, either of them slightly, `the same`, `within noise` or `unknown`."""
    return _judge_ratio(ratio, "larger", "smaller")


def accuracy(difference: Estimate) -> str:
    """`higher`, `lower`, either of them slightly, `the same`, `within noise` or `unknown`."""
    is_small = abs(difference.value) < SMALLEST_ACCURACY
    return _judge(difference, 0.0, "higher", "lower", is_small)


def _judge_ratio(ratio: Estimate, above: str, below: str) -> str:
    # As far below 1 as above: 1/1.05 is as small an effect as 1.05.
    smallest = 1.0 + SMALLEST_RATIO
    return _judge(ratio, 1.0, above, below, 1.0 / smallest < ratio.value < smallest)


def _judge(estimate: Estimate, neutral: float, above: str, below: str, is_small: bool) -> str:
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return UNKNOWN
    if max(abs(low - neutral), abs(high - neutral)) <= _SAME:
        return THE_SAME
    if low <= neutral <= high:
        return WITHIN_NOISE
    return (SLIGHTLY if is_small else "") + (above if estimate.value > neutral else below)


def sentences(variant: Variant, group: Group) -> list[str] | None:
    """Three sentences on a variant against its group's baseline; None where there is none.

    A figure that was not measured says so in its sentence.
    """
    comparison, baseline = variant.comparison, group.baseline
    if comparison is None or baseline is None:
        return None
    name, base = variant.label, baseline.label
    seeds = comparison.seeds
    speed_sentence = _speed_sentence(name, base, comparison.step_speedup, seeds)
    memory_sentence = _memory_sentence(name, base, comparison.memory_ratio, group.device, seeds)
    if not comparison.is_compiled_alike:
        why = f"not compared, as {base} ran {xla_words(baseline.has_xla)}"
        speed_sentence, memory_sentence = f"Speed: {name} is {why}.", f"Memory: {name} is {why}."
    return [
        speed_sentence,
        memory_sentence,
        _accuracy_sentence(variant, baseline, comparison.accuracy_difference, seeds),
    ]


def _speed_sentence(
    name: str, base: str, ratio: Estimate | None, seeds: Sequence[int | None]
) -> str:
    if ratio is None:
        return f"Speed: {name} or {base} has no step time, so nothing can be said."
    return (
        f"Speed: {name} trained {ratio.value:.2f} times as fast as {base} "
        f"{_interval(ratio, seeds)}: {_ending(speed(ratio), ratio)}."
    )


def _memory_sentence(
    name: str, base: str, ratio: Estimate | None, device: str, seeds: Sequence[int | None]
) -> str:
    if ratio is None:
        return f"Memory: {name} or {base} has no device peak, so nothing can be said."
    return (
        f"Memory: {name} peaked at {ratio.value:.2f} times the memory of {base} on "
        f"{device.split(' ')[0]} {_interval(ratio, seeds)}: {_ending(memory(ratio), ratio)}."
    )


def _accuracy_sentence(
    variant: Variant, baseline: Variant, difference: Estimate | None, seeds: Sequence[int | None]
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


def _interval(estimate: Estimate, seeds: Sequence[int | None], signed: bool = False) -> str:
    if estimate.low is None or estimate.high is None:
        if len(seeds) != 1:
            return "(no interval)"
        return f"(seed {seeds[0]} only)" if seeds[0] is not None else "(one pair of runs only)"
    form = "+.2f" if signed else ".2f"
    return f"(95% interval {estimate.low:{form}} to {estimate.high:{form}}, {estimate.n} seeds)"
