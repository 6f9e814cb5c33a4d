"""The rules of a loss scale, each with its default and its range; needs no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tfamp.run.ranges import SMALLEST_FLOAT32, Range, whole

# A loss scale is a float32, and so is what a gradient is divided by: at least the smallest normal
# number, and with room for one doubling below infinity.
LOSS_SCALE = Range(least=SMALLEST_FLOAT32, below=2.0**127)


def _rule(default: Any, allowed: Range) -> Any:
    return dataclasses.field(default=default, metadata={"range": allowed})


@dataclasses.dataclass(frozen=True)
class ScaleRules:
    """How a loss scale moves; see `LossScaleOptimizer` for each rule.

    Raises:
        ValueError: A value is out of range or contradicts another.
    """

    initial_scale: float = _rule(2.0**15, LOSS_SCALE)
    dynamic_growth_steps: int = _rule(2000, whole(1))
    growth_factor: float = _rule(2.0, Range(above=1.0))
    backoff_factor: float = _rule(0.5, Range(above=0.0, below=1.0))
    min_scale: float = _rule(2.0**-14, LOSS_SCALE)
    max_scale: float = _rule(2.0**24, LOSS_SCALE)
    hysteresis: int = _rule(1, whole(1))
    max_skipped_in_a_row: int | None = _rule(200, whole(1, or_none=True))
    recovery_steps: int | None = _rule(20, whole(1, or_none=True))
    dynamic: bool = True

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            why_not = allowed.why_not(value)
            if why_not:
                raise ValueError(f"{name}={value}: {why_not}")
        contradiction = why_not_together(
            dataclasses.asdict(self), lambda rule, value: f"{rule}={value:g}"
        )
        if self.dynamic and contradiction:
            raise ValueError(contradiction)


def why_not_together(rules: Mapping[str, Any], said: Callable[[str, float], str]) -> str | None:
    """Says why the rules of a dynamic scale contradict each other; None if they do not.

    Args:
        rules: Each rule's value, by its name here.
        said: How a message names a rule and its value.
    """
    low, start, high = (rules[name] for name in ("min_scale", "initial_scale", "max_scale"))
    floor, ceiling = said("min_scale", low), said("max_scale", high)
    if low > high:
        return f"{floor} is above {ceiling}. Move one of the two."
    if not low <= start <= high:
        initial = said("initial_scale", start)
        return f"{initial} lies outside [{floor}, {ceiling}]. Move one of the three."
    return None


# The range of each rule that is a number.
RANGES: dict[str, Range] = {
    field.name: field.metadata["range"]
    for field in dataclasses.fields(ScaleRules)
    if "range" in field.metadata
}
