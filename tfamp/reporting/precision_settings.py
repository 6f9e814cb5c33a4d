"""How a run computed: the settings that a report compares, and a name for them."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfamp.reporting.runs import FinishedRun
from tfamp.run.config import FLOAT16_POLICIES, POLICIES, SCALE_SETTINGS, Config
from tfamp.run.resolve import shapes


@dataclasses.dataclass(frozen=True)
class Precision:
    """How a run computed.

    Attributes:
        policy: The Keras policy.
        tf32: Whether float32 products really ran in TF32.
        float32_layers: The patterns of `--float32_layers`.
        loss_scale: `"dynamic"`, `"none"`, a number as text, or None where nothing is scaled
            because nothing computes in float16.
        scale_settings: The flags of a dynamic scale that are not at their defaults.
    """

    policy: str
    tf32: bool
    float32_layers: tuple[str, ...]
    loss_scale: str | None
    scale_settings: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, run: FinishedRun) -> Precision:
        """The precision settings of a run."""
        scaled = run.figures.loss_scale is not None or run.policy in FLOAT16_POLICIES
        moves = scaled and run.config.has_moving_scale
        defaults = Config()
        return cls(
            policy=run.policy,
            tf32=run.result.tf32,
            float32_layers=run.config.float32_layers,
            loss_scale=run.config.loss_scale if scaled else None,
            scale_settings=tuple(
                (name, getattr(run.config, name))
                for name in SCALE_SETTINGS
                if moves
                and shapes(name, run.config.loss_scale)
                and getattr(run.config, name) != getattr(defaults, name)
            ),
        )

    @property
    def label(self) -> str:
        """A name for tables: the policy and what is unusual about it."""
        parts = [self.policy]
        if self.policy == "float32" and self.tf32:
            parts[0] = "float32 in TF32"
        if self.loss_scale == "none":
            parts.append("without loss scaling")
        elif self.loss_scale not in (None, "dynamic"):
            parts.append(f"with loss scale {self.loss_scale}")
        parts += [
            f"with {name}={'none' if value is None else format(value, '.9g')}"
            for name, value in self.scale_settings
        ]
        if self.float32_layers:
            parts.append(f"with float32 layers {' '.join(self.float32_layers)}")
        return " ".join(parts)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts float32 first, then the policies in the order of the flag, plain ones first."""
        known = self.policy in POLICIES
        return (
            POLICIES.index(self.policy) if known else len(POLICIES),
            self.policy,
            bool(self.float32_layers),
            self.loss_scale not in (None, "dynamic"),
            self.label,
            self.tf32,
        )
