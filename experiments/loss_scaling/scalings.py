"""What is compared: float32, and float16 with each way to choose a loss scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras

import tfamp
from tfamp.precision.recorded_optimizer import RecordedOptimizer

FLOAT32, NONE, STATIC, DYNAMIC, AUTO = "float32", "none", "static", "dynamic", "auto"


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A precision and a way to scale the loss.

    Attributes:
        kind: `float32`; or with `mixed_float16`: `none`, `static`, `dynamic`, or `auto`, which is
            dynamic from where the advisor says.
        log2_scale: Of a static scale, or the initial one of a dynamic.
        growth_steps: Clean steps before a dynamic scale grows; the default's where None.
        hysteresis: Skips in a row that a dynamic scale bears; the default's where None.
    """

    kind: str
    log2_scale: int | None = None
    growth_steps: int | None = None
    hysteresis: int | None = None

    @property
    def name(self) -> str:
        """A name for results and pictures, such as `dynamic from 2^15, growth 200`."""
        if self.kind in (FLOAT32, NONE, AUTO):
            return self.kind
        if self.kind == STATIC:
            return f"static 2^{self.log2_scale}"
        more = "" if self.growth_steps is None else f", growth {self.growth_steps}"
        more += "" if self.hysteresis is None else f", hysteresis {self.hysteresis}"
        return f"dynamic from 2^{self.log2_scale}{more}"

    @property
    def title(self) -> str:
        """The name with the precision, for pictures."""
        if self.kind == FLOAT32:
            return self.kind
        return f"float16, {'no loss scale' if self.kind == NONE else self.name}"

    @property
    def policy(self) -> str:
        """The global policy."""
        return "float32" if self.kind == FLOAT32 else "mixed_float16"

    @property
    def is_scaled(self) -> bool:
        """Whether the loss is multiplied by anything."""
        return self.kind not in (FLOAT32, NONE)

    def optimizer(
        self, inner: keras.optimizers.Optimizer, history: int, initial_scale: float | None = None
    ) -> RecordedOptimizer:
        """Wraps an optimizer.

        Args:
            inner: What updates the weights.
            history: Steps to keep a record of.
            initial_scale: Where `auto` begins.
        """
        if not self.is_scaled:
            return RecordedOptimizer(inner, history=history)
        rules: dict[str, Any] = {
            "dynamic_growth_steps": self.growth_steps,
            "hysteresis": self.hysteresis,
            "initial_scale": initial_scale if self.log2_scale is None else 2.0**self.log2_scale,
        }
        given = {rule: value for rule, value in rules.items() if value is not None}
        dynamic = self.kind != STATIC
        return tfamp.LossScaleOptimizer(inner, dynamic=dynamic, history=history, **given)


def statics(log2_scales: Iterable[int]) -> list[Scaling]:
    """Static scales."""
    return [Scaling(STATIC, log2_scale) for log2_scale in log2_scales]


def named(name: str, scalings: Iterable[Scaling]) -> Scaling:
    """The one of a name."""
    return next(scaling for scaling in scalings if scaling.name == name)
