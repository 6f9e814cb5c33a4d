"""The picture of the advisor's claim: predicted and measured error, and what it cost, by scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from experiments.loss_scaling.scalings import FLOAT32, STATIC
from experiments.loss_scaling.workloads import Workload
from tfamp.reporting.figures import log2_axis, style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure

FILE = "claim.png"
_FIRST, _COMMON = "#e3ecf7", "#cfe8d8"
_HALF_STEP = 0.5


def draw(
    workload: Workload, measured: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Drawing:
    """Error over the scale above, score over the scale below.

    Args:
        workload: What was trained.
        measured: As `claim.windows` returns it.
        rows: The table of claim.json.
    """
    static = [row for row in rows if row["settings"]["kind"] == STATIC]
    float32 = next(row["score"] for row in rows if row["scaling"] == FLOAT32)
    first = measured["looks"][0]
    line, dot, square, fused = style.STYLES[:4]
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=line.colour, linewidth=2.2),
        Line2D([], [], color=fused.colour, linestyle=fused.line, linewidth=2.0),
        Line2D([], [], color=dot.colour, marker=dot.marker, linestyle="none"),
        Line2D([], [], color=square.colour, marker=square.marker, linestyle="none"),
        Patch(color=_FIRST),
        Patch(color=_COMMON),
        Line2D([], [], color=style.GREY, linestyle="--"),
    ]
    labels = [
        "predicted from one batch at the start",
        "the same, as XLA compiles the step",
        "measured in the runs' first step",
        "measured, mean over training; the score",
        "the window of the first batch",
        "what all windows over training share",
        f"float32's {workload.score_name}",
    ]
    drawn = new_figure(6.6 + style.legend_inches(labels))
    above, below = drawn.subplots(2, 1, sharex=True)
    for axes in (above, below):
        for window, colour in ((first["window"], _FIRST), (measured["common"], _COMMON)):
            if window is not None:
                ends = window["log2_min"] - _HALF_STEP, window["log2_max"] + _HALF_STEP
                axes.axvspan(*ends, color=colour, linewidth=0, zorder=0)
    for key, look, width in (("points", line, 2.2), ("compiled_points", fused, 2.0)):
        points = [
            (point["log2_scale"], point["relative_error"])
            for point in first[key]
            if point["relative_error"] is not None
        ]
        above.plot(
            *zip(*points, strict=True), color=look.colour, linestyle=look.line, linewidth=width
        )
    for key, look in (("error_at_first_step", dot), ("gradient_error", square)):
        there = [row for row in static if row[key] is not None]
        above.plot(
            [row["settings"]["log2_scale"] for row in there],
            [row[key]["mean"] for row in there],
            color=look.colour,
            marker=look.marker,
            linestyle="none",
        )
    above.set_yscale("log")
    above.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: f"{style.plain_number(round(100 * y, 6))} %")
    )
    above.set_ylabel("Error of the gradient")
    for row in static:
        score = row["score"]
        reach = [100 * score["low"], 100 * score["high"]]
        below.plot(2 * [row["settings"]["log2_scale"]], reach, color=square.colour, linewidth=2.0)
    below.plot(
        [row["settings"]["log2_scale"] for row in static],
        [100 * row["score"]["mean"] for row in static],
        color=square.colour,
        marker=square.marker,
        linestyle="none",
    )
    below.axhline(100 * float32["mean"], color=style.GREY, linestyle="--")
    below.set_ylim(bottom=-3)
    below.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f} %"))
    below.set_ylabel(workload.score_name.capitalize())
    scales = [point["log2_scale"] for point in first["points"]]
    log2_axis.below(below, min(scales) - 0.7, max(scales) + 0.7, "Static loss scale (log₂ axis)")
    style.legend(drawn, handles, labels)
    told = " ".join(
        f"2^{row['settings']['log2_scale']}: {100 * row['score']['mean']:.1f} %." for row in static
    )
    return drawn, Picture(
        file=FILE,
        title="Static scales below, in and above the window",
        alt=f"{workload.score_name} by static scale. {told} float32 {100 * float32['mean']:.1f} %.",
        caption="Points are means over the seeds, bars their range; errors are of the looks at "
        "which the gradient was finite. Where there is no point above, it was so at none.",
    )
