"""What an optimizer did over all phases of a run."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from tfamp.run.result import LossScale


@dataclasses.dataclass
class OptimizerTotals:
    """What an optimizer did so far; goes on where another phase, or a resumed run, takes over.

    Attributes:
        attempted: Updates tried.
        applied: Updates that reached the weights; None where that is not known.
        counted: The counts of the rows that go on over all phases (`records.Figure.kind` is
            `"total"`), by their columns in the optimizer's history; None where one is not known.
        collapsed_at: The update at which loss scaling collapsed, if it did.
        first_skips: Steps of the first ten skips; None where they are not known.
        mode: `"dynamic"` or `"static"`; None while nothing was scaled.
        initial: The first scale.
        final: The last.
        lowest: The smallest that was seen.
        highest: The largest.
    """

    attempted: int = 0
    applied: int | None = 0
    counted: dict[str, int | None] = dataclasses.field(default_factory=dict)
    collapsed_at: int | None = None
    first_skips: list[int] | None = dataclasses.field(default_factory=list)
    mode: Literal["dynamic", "static"] | None = None
    initial: float = math.nan
    final: float = math.nan
    lowest: float = math.inf
    highest: float = -math.inf

    def count(self, column: str) -> int | None:
        """One of `counted`: 0 where nothing was counted yet."""
        return self.counted.get(column, 0)

    def plus(self, counts: dict[str, int | None]) -> dict[str, int | None]:
        """`counted` and what was counted since."""
        columns = {**self.counted, **counts}
        return {column: plus(self.count(column), counts.get(column, 0)) for column in columns}

    def loss_scale(self) -> LossScale | None:
        """What result.json says of the loss scale; None where nothing was scaled."""
        if self.mode is None:
            return None
        return LossScale(
            mode=self.mode,
            initial=self.initial,
            final=self.final,
            min=self.lowest,
            max=self.highest,
            skipped=self.count("skipped_total"),
            skipped_non_finite_loss=self.count("skipped_non_finite_loss"),
            collapsed_at=self.collapsed_at,
            first_skips=None if self.first_skips is None else tuple(self.first_skips),
        )


def plus(first: int | None, second: int | None) -> int | None:
    """The sum of two counts; None where one of them is not known."""
    return None if first is None or second is None else first + second
