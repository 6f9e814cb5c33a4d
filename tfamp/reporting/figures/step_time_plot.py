"""The picture of how long the steps of each variant took."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from tfamp.reporting.figures import rows, style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.reporting.figures.style import Style
from tfamp.reporting.groups import Group
from tfamp.run import records

FILE = "step_times.png"
# Step times whose extremes are this far apart are drawn on a logarithmic axis.
_WIDE = 10.0
# Quartiles of fewer windows than this say less than the windows themselves.
_FEWEST_FOR_A_BOX = 10


def step_times(group: Group) -> Drawing | None:
    """Boxes, or points where they are few, of each variant over the windows of all its seeds."""
    windows = [
        [ms for run in variant.runs for _, ms in run.series(records.STEP_TIME) if _is_positive(ms)]
        if variant.has_comparable_costs
        else []
        for variant in group.variants
    ]
    everything = [ms for times in windows for ms in times]
    if not everything:
        return None
    drawn = new_figure(1.0 + 0.85 * len(windows))
    axes = drawn.subplots()
    alt = []
    for index, (variant, times) in enumerate(zip(group.variants, windows, strict=True)):
        look, row = style.style_of(index), -index
        seeds = len(variant.runs)
        told = f"{len(times)} windows, {seeds} seed{'s' if seeds > 1 else ''}"
        missing = variant.why_no_costs
        rows.write_name(axes, row, variant.label, told if times else missing)
        if not times:
            alt.append(f"{variant.label} was {missing}.")
            continue
        _draw(axes, row, times, look)
        low, median, high = np.percentile(times, (5, 50, 95))
        alt.append(
            f"{variant.label}: median {median:.4g} ms, 5% to 95% of {told} at {low:.4g} to "
            f"{high:.4g} ms."
        )
    is_logarithmic = max(everything) / min(everything) > _WIDE
    label = "Step time (ms" + (", log axis)" if is_logarithmic else ")")
    rows.finish(axes, len(windows), label, is_logarithmic)
    return drawn, Picture(
        file=FILE,
        title="Distribution of step times",
        alt="Box plots of the step time, one a variant. " + " ".join(alt),
        caption=(
            "A window is the mean step time between two marks of the telemetry, without "
            "compiling; all seeds are pooled. Line in the box: median; box: the middle half; "
            "whiskers: 5% to 95%; points: windows beyond. Fewer than "
            f"{_FEWEST_FOR_A_BOX} windows are drawn as points, with a line at their median."
        ),
    )


def _draw(axes: Axes, row: int, times: Sequence[float], look: Style) -> None:
    colour = look.colour
    if len(times) < _FEWEST_FOR_A_BOX:
        axes.plot(
            times,
            [row] * len(times),
            linestyle="none",
            marker=look.marker,
            markersize=8,
            color=colour,
            alpha=0.6,
        )
        median = float(np.median(times))
        axes.vlines(median, row - 0.18, row + 0.18, color=colour, linewidth=3)
        return
    line = {"color": colour, "linewidth": 1.5}
    axes.boxplot(
        [times],
        positions=[row],
        orientation="horizontal",
        widths=0.36,
        whis=(5, 95),
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": (colour, 0.25), "edgecolor": colour, "linewidth": 1.5},
        medianprops={"color": colour, "linewidth": 3},
        whiskerprops=line | {"linestyle": look.line},
        capprops=line,
        flierprops={
            "marker": look.marker,
            "markersize": 4,
            "markerfacecolor": "none",
            "markeredgecolor": colour,
        },
    )


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
