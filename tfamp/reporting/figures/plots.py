"""The pictures of a report: curves, the loss scale, step times, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tfamp.reporting.figures import plot_style
from tfamp.reporting.figures.curves import curves
from tfamp.reporting.figures.plot_style import Picture, Style
from tfamp.reporting.figures.scale_plot import loss_scale
from tfamp.reporting.groups import Group, Variant
from tfamp.run import records

__all__ = ["FILES", "Picture", "draw"]

# Every name that `draw` may write.
FILES = (
    "curves_over_steps.png",
    "curves_over_time.png",
    "loss_scale.png",
    "step_times.png",
    "memory.png",
)
# Step times whose extremes are this far apart are drawn on a logarithmic axis.
_WIDE = 10.0
# Quartiles of fewer windows than this say less than the windows themselves.
_FEWEST_FOR_A_BOX = 10
_MEBIBYTE = 2**20


def draw(group: Group, folder: Path) -> list[Picture]:
    """Draws what a group's runs measured; what none of them measured gets no picture.

    Args:
        group: The runs.
        folder: Where the PNGs go; it must be there.

    Returns:
        The pictures in the order of the page.
    """
    with plot_style.house_style():
        drawn = [*curves(group), loss_scale(group), step_times(group), memory(group)]
        found = [entry for entry in drawn if entry is not None]
        for picture_figure, picture in found:
            plot_style.save(picture_figure, folder / picture.file)
    return [picture for _, picture in found]


def step_times(group: Group) -> tuple[Figure, Picture] | None:
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
    drawn = plot_style.figure(1.0 + 0.85 * len(windows))
    axes = drawn.subplots()
    alt = []
    for index, (variant, times) in enumerate(zip(group.variants, windows, strict=True)):
        style, row = plot_style.style_of(index), -index
        seeds = len(variant.runs)
        told = f"{len(times)} windows, {seeds} seed{'s' if seeds > 1 else ''}"
        missing = _missing(variant)
        _label(axes, row, plot_style.shown(variant.label, 36), told if times else missing)
        if not times:
            alt.append(f"{variant.label} was {missing}.")
            continue
        _draw_times(axes, row, times, style)
        low, median, high = np.percentile(times, (5, 50, 95))
        alt.append(
            f"{variant.label}: median {median:.4g} ms, 5% to 95% of {told} at {low:.4g} to "
            f"{high:.4g} ms."
        )
    is_logarithmic = max(everything) / min(everything) > _WIDE
    if is_logarithmic:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plot_style.plain_number(x)))
    axes.set_xlabel("Step time (ms" + (", log axis)" if is_logarithmic else ")"))
    _finish_rows(axes, len(windows))
    return drawn, Picture(
        file="step_times.png",
        title="Distribution of step times",
        alt="Box plots of the step time, one a variant. " + " ".join(alt),
        caption=(
            "A window is the mean step time between two marks of the telemetry, without "
            "compiling; all seeds are pooled. Line in the box: median; box: the middle half; "
            "whiskers: 5% to 95%; points: windows beyond. Fewer than "
            f"{_FEWEST_FOR_A_BOX} windows are drawn as points, with a line at their median."
        ),
    )


def _draw_times(axes: Axes, row: int, times: Sequence[float], style: Style) -> None:
    colour = style.colour
    if len(times) < _FEWEST_FOR_A_BOX:
        axes.plot(
            times,
            [row] * len(times),
            linestyle="none",
            marker=style.marker,
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
        whiskerprops=line | {"linestyle": style.line},
        capprops=line,
        flierprops={
            "marker": style.marker,
            "markersize": 4,
            "markerfacecolor": "none",
            "markeredgecolor": colour,
        },
    )


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def memory(group: Group) -> tuple[Figure, Picture] | None:
    """A bar for each variant's device peak, a point for each seed."""
    peaks = [
        [
            peak / _MEBIBYTE
            for run in variant.runs
            if variant.has_comparable_costs
            and (peak := run.result["device_peak_bytes"]) is not None
        ]
        for variant in group.variants
    ]
    everything = [peak for seeds in peaks for peak in seeds]
    if not everything:
        return None
    unit, size = ("GiB", 1024.0) if max(everything) >= 10 * 1024 else ("MiB", 1.0)
    drawn = plot_style.figure(1.2 + 0.85 * len(peaks))
    axes = drawn.subplots()
    alt = []
    for index, (variant, found) in enumerate(zip(group.variants, peaks, strict=True)):
        style, row = plot_style.style_of(index), -index
        estimate = variant.mean("device_peak_bytes")
        if estimate is None or not found:
            missing = _missing(variant)
            _label(axes, row, plot_style.shown(variant.label, 36), missing)
            alt.append(f"{variant.label} was {missing}.")
            continue
        mean = estimate.value / _MEBIBYTE / size
        told = f"{mean:,.{1 if unit == 'MiB' else 2}f} {unit}"
        _label(axes, row, plot_style.shown(variant.label, 36), told)
        axes.barh(row, mean, height=0.36, color=style.colour + "66", edgecolor=style.colour)
        if estimate.low is not None and estimate.high is not None:
            low, high = (end / _MEBIBYTE / size for end in (estimate.low, estimate.high))
            axes.errorbar(
                mean,
                row,
                xerr=[[mean - low], [high - mean]],
                color="#000000",
                capsize=6,
                linewidth=1.5,
            )
        # Spread over the bar's height, so that equal seeds can be counted.
        spread = np.linspace(-0.13, 0.13, len(found)) if len(found) > 1 else np.zeros(1)
        axes.plot(
            np.array(found) / size,
            row + spread,
            linestyle="none",
            marker=style.marker,
            markersize=max(3.5, min(7.0, 20 / len(found))),
            color=style.colour,
            markeredgecolor="white",
            markeredgewidth=0.5 if len(found) < 5 else 0,
            zorder=4,
        )
        alt.append(f"{variant.label}: {told} over {len(found)} seeds.")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plot_style.plain_number(x)))
    axes.set_xlabel(f"Peak memory ({unit}) on\n{plot_style.shown(group.device, 52)}")
    _finish_rows(axes, len(peaks))
    return drawn, Picture(
        file="memory.png",
        title="Device memory peak",
        alt=f"Bars of the peak memory on {group.device}, one a variant. " + " ".join(alt),
        caption=(
            f"The highest peak of any epoch on {group.device}. Bar: geometric mean over the seeds; "
            "black bracket: its 95% interval, where there are two seeds or more; points: the seeds."
        ),
    )


def _missing(variant: Variant) -> str:
    """Why nothing of a variant is drawn."""
    return "not measured" if variant.has_comparable_costs else plot_style.OTHER_COMPILER


def _label(axes: Axes, row: int, label: str, told: str) -> None:
    """Writes a variant's name above its row, where it needs no room beside the axis."""
    frame = axes.get_yaxis_transform()
    axes.text(0.01, row + 0.29, label, transform=frame, fontsize=11.5, va="bottom", weight="bold")
    axes.text(0.99, row + 0.29, told, transform=frame, fontsize=11.5, va="bottom", ha="right")


def _finish_rows(axes: Axes, rows: int) -> None:
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-rows + 1 - 0.35, 0.7)
