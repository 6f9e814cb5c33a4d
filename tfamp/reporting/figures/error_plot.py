"""The picture of a gradient's error over the loss scale: wall, valley, wall."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from tfamp.reporting import fidelity_points
from tfamp.reporting.figures import log2_axis, style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.run.fidelity import Fidelity, Point

FILE = "error_over_scale.png"
_WINDOW = "#cfe8d8"
_SETTLED, _ADVISED = "#910427", "#032b87"
# Of the panel's height, what a row of crosses takes.
_ROW = 0.07


def error_over_scale(fidelity: Fidelity) -> Drawing | None:
    """mixed_float16's error at each scale, the others as lines across; None without a scale."""
    whole = fidelity_points.scaled(fidelity.precisions)
    if not whole:
        return None
    telling = fidelity_points.telling_layers(fidelity) if len(fidelity.layers) > 1 else []
    curves = [(fidelity_points.SCALED, whole, style.STYLES[0], 2.4)]
    for index, layer in zip((1, 3, 5), telling, strict=False):
        points = fidelity_points.scaled(fidelity_points.judged(layer))
        curves.append((layer.path, points, style.STYLES[index], 1.5))
    unscaled = fidelity_points.unscaled(fidelity.precisions)
    across = [
        (point.precision, point.relative_error, style.STYLES[index])
        for index, point in zip((2, 4, 6), unscaled, strict=False)
        if point.relative_error is not None
    ]
    shown = [point.relative_error for _, points, _, _ in curves for point in points]
    shown += [error for _, error, _ in across]
    broken = [any(point.relative_error is None for point in points) for _, points, _, _ in curves]
    frame = _Frame([error for error in shown if error], sum(broken))
    labels: list[str] = []
    handles: list[Line2D | Patch] = []

    def named(handle: Line2D | Patch, label: str) -> None:
        handles.append(handle)
        labels.append(label)

    marks = [
        (fidelity.settled_log2_scale, _SETTLED, ":", "where the run's scale ended"),
        (fidelity_points.advised_log2_scale(fidelity), _ADVISED, "-", "advised scale"),
    ]
    names = [name for name, *_ in curves] + [name for name, *_ in across]
    lines = len(names) + sum(where is not None for where, *_ in marks) + 2
    drawn = new_figure(3.4 + 0.25 * lines)
    axes = drawn.subplots()
    if fidelity.window is not None:
        # A scale stands for the half step on either side of it, as in the map of the layers.
        ends = fidelity.window.log2_min - 0.5, fidelity.window.log2_max + 0.5
        axes.axvspan(*ends, color=_WINDOW, linewidth=0, zorder=0)
        named(Patch(color=_WINDOW), "the window: in every layer's")
    for index, (label, points, look, width) in enumerate(curves):
        (line,) = _draw(axes, points, frame, look, width)
        _draw_broken(axes, points, frame.row(sum(broken[:index])), look)
        whose = f"{label}, all weights" if points is whole else f"layer {label}"
        named(line, style.shown(whose))
    for label, error, look in across:
        line = axes.axhline(frame.place(error), color=look.colour, linestyle=look.line, lw=1.8)
        named(line, style.shown(f"{label}, unscaled"))
    for where, colour, line_style, label in marks:
        if where is not None:
            named(axes.axvline(where, color=colour, linestyle=line_style, linewidth=2.0), label)
    frame.finish(axes)
    reach = [point.log2_scale or 0.0 for point in whole]
    reach += [where for where, *_ in marks if where is not None]
    log2_axis.below(axes, min(reach) - 0.7, max(reach) + 0.7, "Loss scale (log₂ axis)")
    style.legend(drawn, handles, labels)
    return drawn, Picture(
        file=FILE,
        title="Error of the gradient over the loss scale",
        alt=_alt(fidelity, whole),
        caption=_caption(fidelity, len(telling)),
    )


class _Frame:
    """The axis of the errors, with rows above them for what is not finite.

    Args:
        errors: What is drawn, above 0.
        rows: Curves that have something not finite.
    """

    def __init__(self, errors: Sequence[float], rows: int) -> None:
        low, high = (min(errors), max(errors)) if errors else (1e-3, 1.0)
        self._low, self._largest = low / 2, max(high, low * 10) * 2
        self._rows = rows
        self._apart = (self._largest / self._low) ** (_ROW / (1 - _ROW * (rows + 0.5)))

    def place(self, error: float) -> float:
        """Where an error is drawn; none at all, which the axis does not hold, at its foot."""
        return max(error, self._low)

    def row(self, index: int) -> float:
        """Where a curve's crosses are drawn, counted from the top."""
        return self._largest * self._apart ** (self._rows - index)

    def finish(self, axes: Axes) -> None:
        """Gives the panel its axis in percent."""
        axes.set_yscale("log")
        axes.set_ylim(self._low, self._largest * self._apart ** (self._rows + 0.6))
        low, high = (math.log10(100 * end) for end in (self._low, self._largest))
        apart = max(1, math.ceil((high - low) / 8))
        named = {
            10.0 ** (n - 2): f"{style.plain_number(10.0**n)} %"
            for n in range(math.ceil(low), math.floor(high) + 1, apart)
        }
        if self._rows:
            middle = self._largest * self._apart ** ((self._rows + 1) / 2)
            named[middle] = "not\nfinite"
        axes.yaxis.set_major_locator(FixedLocator(list(named)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FixedFormatter(list(named.values())))
        axes.set_ylabel("Relative error (log axis)")


def _draw(
    axes: Axes, points: Sequence[Point], frame: _Frame, look: style.Style, width: float
) -> list[Line2D]:
    return axes.plot(
        [point.log2_scale or 0.0 for point in points],
        [
            math.nan if point.relative_error is None else frame.place(point.relative_error)
            for point in points
        ],
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markersize=4.5 if width > 2 else 3.5,
        linewidth=width,
        alpha=1.0 if width > 2 else 0.85,
    )


def _draw_broken(axes: Axes, points: Sequence[Point], height: float, look: style.Style) -> None:
    scales = [point.log2_scale or 0.0 for point in points if point.relative_error is None]
    axes.plot(
        scales,
        [height] * len(scales),
        linestyle="none",
        marker="x",
        markersize=6,
        markeredgewidth=1.8,
        color=look.colour,
    )


def _alt(fidelity: Fidelity, points: Sequence[Point]) -> str:
    told = [
        f"{style.power_of_two(2.0 ** (point.log2_scale or 0.0))}: "
        + ("not finite" if point.relative_error is None else f"{100 * point.relative_error:.3g} %")
        for point in points
    ]
    window = fidelity.window
    return (
        "Line chart of the relative error of the gradient over the loss scale, both axes "
        f"logarithmic. {fidelity_points.SCALED} at {', '.join(told)}. "
        + (f"The window is {window}." if window else "No scale is in every layer's window.")
    )


def _caption(fidelity: Fidelity, num_layers: int) -> str:
    told = (
        "How far the gradient of the weights is from "
        f"{fidelity.reference}'s: 100 % is as far as no gradient at all would be. To the left "
        "gradients underflow, to the right they overflow; crosses stand for what is not finite and "
        "has no height. "
    )
    if num_layers:
        told += (
            "Layers are the two whose windows bound the model's, and the one that most error goes "
            "with in float32; one may be several of these. "
        )
    return told + ("" if fidelity.window else "No scale is in every layer's window. ").strip()
