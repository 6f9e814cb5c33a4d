"""The pictures of loss and accuracy, by step and by time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tfamp.reporting.figures import style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.reporting.figures.series import (
    Break,
    Curve,
    Place,
    at_rows,
    breaks,
    training_clock,
    training_loss,
)
from tfamp.reporting.figures.style import Style
from tfamp.reporting.groups import Group, Variant
from tfamp.run import records

OVER_STEPS, OVER_TIME = FILES = ("curves_over_steps.png", "curves_over_time.png")
# A loss that spans more than this is drawn on a logarithmic axis.
_WIDE = 100.0


def curves(group: Group) -> list[Drawing]:
    """Loss and accuracy over steps, and over training time where it was measured."""
    found = [_curves(group, over_time=False)]
    if any(training_clock(run) is not None for run in group.runs):
        found.append(_curves(group, over_time=True))
    return found


def _curves(group: Group, over_time: bool) -> Drawing:
    labels = [style.shown(variant.label) for variant in group.variants]
    labels += ["thin: training", "thick: validation"]
    drawn = new_figure(7.0 + style.legend_inches(labels))
    loss_axes, accuracy_axes = drawn.subplots(2, 1, sharex=True)
    handles, untimed, bins = [], [], 1
    broken: list[str] = []
    marked: list[tuple[Style, np.ndarray, Sequence[Break]]] = []
    loss_values: list[np.ndarray] = []
    for index, variant in enumerate(group.variants):
        look = style.style_of(index)
        handles.append(_handle(look))
        is_unlike = over_time and not variant.has_comparable_costs
        place = None if is_unlike else Place.of(variant, over_time)
        if place is None:
            why = variant.why_no_costs if is_unlike else "times not measured"
            untimed.append(f"{variant.label} ({why})")
            continue
        loss, bins = training_loss(variant)
        validation_loss = at_rows(variant, records.VALIDATION_LOSS, "epoch")
        train = at_rows(variant, records.TRAIN_ACCURACY, "step", 100.0)
        validation = at_rows(variant, records.VALIDATION_ACCURACY, "epoch", 100.0)
        _draw_training(loss_axes, loss, place, look)
        # Of variants on the same points, the earlier show around the later.
        size = 11.0 - 5.0 * index / max(3, len(group.variants) - 1)
        _draw_validation(loss_axes, validation_loss, place, look, size)
        _draw_training(accuracy_axes, train, place, look)
        _draw_validation(accuracy_axes, validation, place, look, size)
        loss_values += [c.values for c in (loss, validation_loss) if c is not None]
        found = breaks(variant)
        if found:
            marked.append((look, place(np.array([entry.step for entry in found])), found))
            broken.append(_told(variant, found))
    is_logarithmic = _set_loss_scale(loss_axes, loss_values)
    loss_axes.set_ylabel("Loss" + (" (log axis)" if is_logarithmic else ""))
    accuracy_axes.set_ylabel("Accuracy (%)")
    accuracy_axes.set_xlabel(
        "Training time without compiling (s)" if over_time else "Training step"
    )
    accuracy_axes.xaxis.set_major_locator(MaxNLocator(6, integer=not over_time))
    accuracy_axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.plain_number(x)))
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlim(left=0)
    _mark_breaks(loss_axes, marked)
    style.legend(drawn, [*handles, *_kinds()], labels)
    return drawn, _curves_picture(group, over_time, bins, broken, untimed)


def _handle(look: Style) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker, linewidth=2)


def _kinds() -> list[Line2D]:
    """Legend entries for the two thicknesses of line."""
    grey = style.GREY
    return [
        Line2D([], [], color=grey, linewidth=1.3),
        Line2D([], [], color=grey, linewidth=2.6, marker="o", markersize=8),
    ]


def _draw_training(axes: Axes, curve: Curve | None, place: Place, look: Style) -> None:
    if curve is None:
        return
    x = place(curve.steps)
    axes.plot(x, curve.mean, color=look.colour, linestyle=look.line, linewidth=1.3)
    if len(curve.values) > 1:
        low, high = curve.range
        # Its edge keeps the band visible where a single seed is left in it.
        colour = look.colour
        axes.fill_between(
            x, low, high, facecolor=(colour, 0.18), edgecolor=(colour, 0.6), linewidth=0.6
        )


def _draw_validation(
    axes: Axes, curve: Curve | None, place: Place, look: Style, size: float
) -> None:
    if curve is None:
        return
    x = place(curve.steps)
    every = max(1, len(x) // 10)
    # From the end backwards, so that the last epoch has its point.
    shown = np.arange(len(x) - 1, -1, -every)[::-1].tolist()
    axes.plot(
        x,
        curve.mean,
        color=look.colour,
        linestyle=look.line,
        linewidth=2.6,
        marker=look.marker,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.7,
        markevery=shown,
    )
    if len(curve.values) > 1:
        low, high = curve.range
        axes.vlines(x[shown], low[shown], high[shown], color=look.colour, linewidth=1.2)


def _mark_breaks(axes: Axes, marked: Sequence[tuple[Style, np.ndarray, Sequence[Break]]]) -> None:
    """Marks where losses break, a row of the panel's top for each variant, with words."""
    if not marked:
        return
    frame = axes.get_xaxis_transform()
    right = axes.get_xlim()[1]
    # Room above the curves.
    to_axis, from_axis = axes.transScale, axes.transScale.inverted()
    low, high = (to_axis.transform((1.0, end))[1] for end in axes.get_ylim())
    axes.set_ylim(top=from_axis.transform((1.0, high + (high - low) * 0.11 * len(marked)))[1])
    share = 0.11 / (1 + 0.11 * len(marked))
    for row, (look, where, found) in enumerate(marked):
        height = 1 - share * (row + 0.5)
        axes.plot(
            where,
            [height] * len(where),
            transform=frame,
            linestyle="none",
            marker="X",
            markersize=9,
            color=look.colour,
            markeredgecolor="white",
            clip_on=False,
            zorder=5,
        )
        first = min(found, key=lambda entry: entry.step)
        several = f" ({len(found)} seeds)" if len(found) > 1 else ""
        is_late = where.min() > right - where.max()
        axes.annotate(
            f"{first.word} from step {first.step}{several}",
            (float(where.min() if is_late else where.max()), height),
            xycoords=frame,
            xytext=(-9 if is_late else 9, 0),
            textcoords="offset points",
            va="center",
            ha="right" if is_late else "left",
            color=look.colour,
            fontsize=11,
        )


def _told(variant: Variant, found: Sequence[Break]) -> str:
    seeds = ", ".join(
        f"seed {entry.seed} from step {entry.step} ({entry.count} values)" for entry in found
    )
    return f"{variant.label}: the loss is not finite in {seeds}."


def _set_loss_scale(axes: Axes, values: Sequence[np.ndarray]) -> bool:
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.array([])
    if not finite.size:
        axes.text(
            0.5, 0.5, "no finite loss", transform=axes.transAxes, ha="center", color=style.GREY
        )
        axes.set_yticks([])
        return False
    if finite.min() > 0 and finite.max() / finite.min() > _WIDE:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: style.plain_number(x)))
        return True
    return False


def _curves_picture(
    group: Group, over_time: bool, bins: int, broken: Sequence[str], untimed: Sequence[str]
) -> Picture:
    axis = "training time" if over_time else "training steps"
    seeds = max(len(variant.runs) for variant in group.variants)
    many = (
        "Lines are means over the seeds; the band, and the bar at a point, reach from the lowest "
        "seed to the highest. "
        if seeds > 1
        else ""
    )
    smoothed = f"means of {bins} steps" if bins > 1 else "of every step"
    if over_time:
        caption = (
            "The same lines against the time in training steps, from their measured windows: "
            "tracing, compiling and validation are not in it. "
        )
    else:
        caption = (
            f"Thin lines: training loss ({smoothed}) and training accuracy. Thick lines with "
            f"points: validation, after each epoch. {many}"
        )
    if untimed:
        caption += f"Not drawn: {', '.join(untimed)}. "
    caption += " ".join(broken)
    ends = [_ends(variant) for variant in group.variants]
    return Picture(
        file=OVER_TIME if over_time else OVER_STEPS,
        title=f"Loss and accuracy over {axis}",
        alt=f"Two line charts over {axis}, one line a variant: loss above, accuracy below. "
        + " ".join(ends + list(broken)),
        caption=caption.strip(),
    )


def _ends(variant: Variant) -> str:
    loss, accuracy = variant.mean("train_loss"), variant.mean("validation_accuracy")
    parts = []
    if loss is not None:
        parts.append(f"training loss {_number(loss.value)}")
    if accuracy is not None:
        parts.append(f"validation accuracy {_number(100 * accuracy.value)} %")
    return f"{variant.label} ends at {' and '.join(parts)}." if parts else ""


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "NaN"
