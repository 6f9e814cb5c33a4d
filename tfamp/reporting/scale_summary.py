"""What the loss scale of a run did: where it began, settled and ended, and what it skipped."""

from __future__ import annotations

import dataclasses
from collections import Counter

from tfamp.reporting.runs import FinishedRun
from tfamp.run import records
from tfamp.run.fidelity import Window


@dataclasses.dataclass(frozen=True)
class ScaleSummary:
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
        window: The scales that were safe on the first batch, as `--loss_scale=auto` found them.
        steps_below: Steps whose scale was smaller than all of them; None without a window.
        steps_above: Steps whose scale was larger.
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
    window: Window | None = None
    steps_below: int | None = None
    steps_above: int | None = None


def summarise_scale(run: FinishedRun) -> ScaleSummary | None:
    """Reads the rows' loss scale; None for a run that scaled nothing."""
    scale = run.figures.loss_scale
    scales = [value for _, value in run.series(records.SCALE)]
    if scale is None or not scales:
        return None
    window = None if scale.auto is None else scale.auto.window
    late = Counter(scales[len(scales) // 2 :])
    after = [*scales[1:], scale.final]
    skips = skipped_steps(run)
    # Keras's own scaler is read at marks only: its rows are fewer than its steps.
    has_all_steps = len(scales) >= run.figures.steps_attempted
    return ScaleSummary(
        mode=scale.mode,
        initial=scales[0],
        settled=late.most_common(1)[0][0],
        final=scale.final,
        growths=sum(new > old for old, new in zip(scales, after, strict=True)),
        skipped=len(skips) if has_all_steps else scale.skipped,
        first_overflow_step=skips[0] if skips and has_all_steps else None,
        # Updates: with accumulation a row is one microbatch.
        steps=run.figures.steps_attempted,
        skipped_non_finite_loss=scale.skipped_non_finite_loss,
        collapsed_at=scale.collapsed_at,
        window=window,
        steps_below=None if window is None else sum(map(window.is_below, scales)),
        steps_above=None if window is None else sum(map(window.is_above, scales)),
    )


def skipped_steps(run: FinishedRun) -> list[int]:
    """The steps at which the count of skipped steps went up."""
    totals = run.series(records.SKIPPED_TOTAL)
    before = [0, *(total for _, total in totals)]
    return [step for (step, total), old in zip(totals, before, strict=False) if total > old]
