"""What became of the gradients of a float16 run, with a loss scale or without."""

from __future__ import annotations

import dataclasses
import math

from tfamp.reporting.runs import FinishedRun
from tfamp.run import records
from tfamp.run.config import FLOAT16_POLICIES


@dataclasses.dataclass(frozen=True)
class GradientSummary:
    """The gradients of one run.

    Attributes:
        has_trained: Whether the last epoch's training loss is finite and below the first step's.
        first_loss: The first step's training loss.
        last_loss: The last epoch's mean training loss.
        non_finite_steps: Steps whose gradient held a NaN or an infinity.
        first_non_finite_step: The first of them, counted from 1; None where there was none.
        zero_share: The mean share, from 0 to 1, of gradient entries that were exactly zero; None
            where it was not recorded. Some are zero in float32 too, behind a ReLU that is off.
        non_finite_share: The same of entries that were NaN or infinite.
        steps: Steps whose gradients were counted.
    """

    has_trained: bool
    first_loss: float | None
    last_loss: float | None
    non_finite_steps: int
    first_non_finite_step: int | None
    zero_share: float | None
    non_finite_share: float | None
    steps: int


def summarise_gradients(run: FinishedRun) -> GradientSummary | None:
    """Reads what the rows know of the gradients; None for a run without float16."""
    if run.figures.loss_scale is None and run.policy not in FLOAT16_POLICIES:
        return None
    losses = [loss for _, loss in run.series(records.TRAIN_LOSS)]
    norms = run.series(records.GRADIENT_NORM)
    bad = [step for step, norm in norms if not math.isfinite(norm)]
    zeros = [share for _, share in run.series(records.GRADIENT_ZEROS)]
    non_finite = [share for _, share in run.series(records.GRADIENT_NON_FINITE)]
    first, last = (losses[0] if losses else None), run.figures.train_loss
    return GradientSummary(
        has_trained=first is not None and last is not None and last < first,
        first_loss=first,
        last_loss=last,
        non_finite_steps=len(bad),
        first_non_finite_step=bad[0] if bad else None,
        zero_share=math.fsum(zeros) / len(zeros) if zeros else None,
        non_finite_share=math.fsum(non_finite) / len(non_finite) if non_finite else None,
        steps=len(norms),
    )
