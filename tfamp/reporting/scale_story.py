"""What the loss scale did in a float16 run, and what happened where there was none."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

from tfamp.reporting.runs import Run
from tfamp.run import records
from tfamp.run.config import FLOAT16_POLICIES


@dataclasses.dataclass(frozen=True)
class ScaleStory:
    """The loss scale of one run.

    Attributes:
        mode: `"dynamic"` or `"static"`.
        initial: The scale of the first step.
        settled: The scale that most steps of the run's second half had.
        final: The scale after the last step.
        growths: How often it grew.
        skipped: Steps whose update was skipped because a gradient was not finite; None where that
            is not known, as of Keras's own scaler once its scale has fallen to 0.
        first_overflow_step: The first of them, counted from 1; None where there was none, or where
            the scale was read now and then only.
        steps: Steps that were tried.
        skipped_non_finite_loss: Those of the skipped whose own loss was NaN or infinite, which say
            nothing about the scale; None where an older run did not count them.
        collapsed_at: The step at which the scale collapsed; None where it did not.
    """

    mode: str
    initial: float
    settled: float
    final: float
    growths: int
    skipped: int | None
    first_overflow_step: int | None
    steps: int
    skipped_non_finite_loss: int | None = None
    collapsed_at: int | None = None


@dataclasses.dataclass(frozen=True)
class GradientHealth:
    """What became of a float16 run's gradients.

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


def scale_story(run: Run) -> ScaleStory | None:
    """Reads the rows' loss scale; None for a run that scaled nothing."""
    result = run.result["loss_scale"]
    scales = [scale for _, scale in run.series(records.SCALE)]
    if result is None or not scales:
        return None
    late = Counter(scales[len(scales) // 2 :])
    after = [*scales[1:], result["final"]]
    skips = skipped_steps(run)
    # Keras's own scaler is read at marks only: its rows are fewer than its steps.
    has_all_steps = len(scales) >= run.result["steps_attempted"]
    return ScaleStory(
        mode=result["mode"],
        initial=scales[0],
        settled=late.most_common(1)[0][0],
        final=result["final"],
        growths=sum(new > old for old, new in zip(scales, after, strict=True)),
        skipped=len(skips) if has_all_steps else result["skipped"],
        first_overflow_step=skips[0] if skips and has_all_steps else None,
        steps=len(scales) if has_all_steps else run.result["steps_attempted"],
        skipped_non_finite_loss=_count(result.get("skipped_non_finite_loss")),
        collapsed_at=_count(result.get("collapsed_at")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def skipped_steps(run: Run) -> list[int]:
    """The steps at which the count of skipped steps went up."""
    totals = run.series(records.SKIPPED_TOTAL)
    before = [0, *(total for _, total in totals)]
    return [step for (step, total), old in zip(totals, before, strict=False) if total > old]


def gradient_health(run: Run) -> GradientHealth | None:
    """Reads what the rows know of the gradients; None for a run without float16."""
    if run.result["loss_scale"] is None and run.policy not in FLOAT16_POLICIES:
        return None
    losses = [loss for _, loss in run.series(records.TRAIN_LOSS)]
    norms = run.series(records.GRADIENT_NORM)
    bad = [step for step, norm in norms if not math.isfinite(norm)]
    zeros = [share for _, share in run.series(records.GRADIENT_ZEROS)]
    non_finite = [share for _, share in run.series(records.GRADIENT_NON_FINITE)]
    first, last = (losses[0] if losses else None), run.result["train_loss"]
    return GradientHealth(
        has_trained=first is not None and last is not None and last < first,
        first_loss=first,
        last_loss=last,
        non_finite_steps=len(bad),
        first_non_finite_step=bad[0] if bad else None,
        zero_share=math.fsum(zeros) / len(zeros) if zeros else None,
        non_finite_share=math.fsum(non_finite) / len(non_finite) if non_finite else None,
        steps=len(norms),
    )
