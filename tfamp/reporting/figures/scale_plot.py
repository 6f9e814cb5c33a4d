"""The picture of the loss scale over steps, with every skipped step."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tfamp.reporting.figures import style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.reporting.figures.style import Style
from tfamp.reporting.groups import Group, Variant
from tfamp.reporting.runs import FinishedRun
from tfamp.reporting.scale_summary import skipped_steps
from tfamp.run import records

FILE = "loss_scale.png"


def loss_scale(group: Group) -> Drawing | None:
    """A panel for each variant that scaled its loss; None where none did."""
    scaled = [
        (style.style_of(index), variant)
        for index, variant in enumerate(group.variants)
        if any(run.series(records.SCALE) for run in variant.runs)
    ]
    if not scaled:
        return None
    drawn = new_figure(0.7 + 1.9 * len(scaled))
    panels = drawn.subplots(len(scaled), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    alt, lost = [], 0
    for axes, (look, variant) in zip(panels, scaled, strict=True):
        lost += sum(_draw(axes, run, look) for run in variant.runs)
        alt.append(_describe(variant))
        axes.set_title(
            f"{style.shown(variant.label, 40)}\n{_skips_text(variant)}",
            loc="left",
            color=look.colour,
        )
    first, last = panels[0], panels[-1]
    first.set_yscale("log", base=2)
    low, high = (math.log2(end) for end in first.get_ylim())
    # Half a power around, so that a constant scale has an axis too.
    first.set_ylim(2 ** (low - 0.5), 2 ** (high + 0.5))
    apart = max(1, math.ceil((high - low) / 5))
    exponents = range(math.ceil(low - 0.5), math.floor(high + 0.5) + 1)
    # From the lowest power up, where a scale that has settled mostly lies.
    first.yaxis.set_major_locator(FixedLocator([2.0**n for n in exponents][::apart]))
    first.yaxis.set_minor_locator(NullLocator())
    first.yaxis.set_major_formatter(FuncFormatter(lambda x, _: style.power_of_two(x)))
    last.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    last.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.plain_number(x)))
    last.set_xlim(left=0)
    last.set_xlabel("Training step")
    drawn.supylabel("Loss scale (log₂ axis)", fontsize=12)
    caption = (
        "The scale that each step's loss was multiplied by, a line a seed (seeds that agree lie "
        "on each other). A cross is a step that was skipped because a gradient was not finite."
    )
    if lost:
        caption += f" {lost} steps had a scale that is not finite or not above 0: not drawn."
    return drawn, Picture(
        file=FILE,
        title="Loss scale over training steps",
        alt="Step charts of the loss scale on a logarithmic axis, one panel a variant. "
        + " ".join(alt),
        caption=caption,
    )


def _draw(axes: Axes, run: FinishedRun, look: Style) -> int:
    """Draws a run's scale; returns how many steps could not be drawn."""
    series = run.series(records.SCALE)
    good = [(step, scale) for step, scale in series if math.isfinite(scale) and scale > 0]
    if not good:
        return len(series)
    # A line of millions of steps has few corners: only they are drawn.
    corners = [
        point
        for index, point in enumerate(good)
        if index in (0, len(good) - 1)
        or point[1] != good[index - 1][1]
        or point[1] != good[index + 1][1]
    ]
    axes.plot(
        [step for step, _ in corners],
        [scale for _, scale in corners],
        drawstyle="steps-mid",
        color=look.colour,
        linewidth=1.8,
        alpha=0.75,
    )
    scale_at = dict(good)
    skips = [step for step in skipped_steps(run) if step in scale_at]
    axes.plot(
        skips,
        [scale_at[step] for step in skips],
        linestyle="none",
        marker="x",
        markersize=9,
        markeredgewidth=2.2,
        color="#000000",
        zorder=4,
    )
    return len(series) - len(good)


def _skips_text(variant: Variant) -> str:
    skips = [len(skipped_steps(run)) for run in variant.runs]
    steps = max(len(run.series(records.SCALE)) for run in variant.runs)
    if len(skips) == 1:
        return f"skipped {skips[0]} of {steps:,} steps"
    if min(skips) == max(skips):
        return f"skipped {skips[0]} of {steps:,} steps in each of {len(skips)} seeds"
    return f"skipped {min(skips)} to {max(skips)} of {steps:,} steps over {len(skips)} seeds"


def _describe(variant: Variant) -> str:
    scales = [scale for run in variant.runs for _, scale in run.series(records.SCALE)]
    finite = [scale for scale in scales if math.isfinite(scale)]
    reach = f"between {min(finite):g} and {max(finite):g}, " if finite else ""
    return f"{variant.label}: {reach}{_skips_text(variant)}."
