"""The picture of every layer's error at every loss scale, with the windows drawn in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tfamp.reporting import fidelity_points
from tfamp.reporting.figures import layer_rows, log2_axis, style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.run.fidelity import Fidelity, LayerFidelity, Point, Window

FILE = "layers_and_scales.png"
# Light is a small error. It differs in grey and for any kind of colour blindness.
_COLOURS = "cividis_r"
_HATCH, _MODEL, _DASHES = "#777777", "#c2185b", (0, (4, 1.5))
_LINE = 1.5
# Errors further below the largest are all of the lightest colour.
_DECADES = 6


def layers_and_scales(fidelity: Fidelity) -> Drawing | None:
    """A row a layer, a column a scale of mixed_float16; None where no layer was scaled."""
    telling = fidelity_points.telling_layers(fidelity)
    shown = [layer for layer in fidelity.layers if layer.points or layer in telling]
    curves = [(x, fidelity_points.scaled(fidelity_points.judged(x))) for x in shown]
    curves = [(layer, points) for layer, points in curves if points]
    if not curves:
        return None
    layers = [layer for layer, _ in curves]
    scales = sorted({point.log2_scale or 0.0 for _, points in curves for point in points})
    errors = np.array([_errors(points, scales) for _, points in curves])
    edges = _edges(scales)
    drawn = new_figure(2.3 + layer_rows.inches(len(layers)))
    axes = drawn.subplots()
    axes.grid(visible=False)
    rows = np.arange(len(layers) + 1) - 0.5
    lightest, darkest = _range(errors[np.isfinite(errors) & (errors > 0)])
    known = np.ma.masked_invalid(np.where(np.isinf(errors), np.nan, errors))
    mesh = axes.pcolormesh(
        edges,
        rows,
        np.ma.clip(known, lightest, darkest),
        cmap=_COLOURS,
        norm=LogNorm(lightest, darkest),
    )
    broken = np.ma.masked_where(~np.isinf(errors), np.zeros_like(errors))
    axes.pcolor(
        edges, rows, broken, cmap=ListedColormap(["white"]), hatch="xxx", edgecolor=_HATCH, lw=0
    )
    windows = [layer.window for layer in layers]
    _outline(axes, [None if w is None else _ends(w, scales, edges) for w in windows])
    handles: list[Artist] = [
        Patch(facecolor="white", edgecolor="#000000", linewidth=_LINE),
        Patch(facecolor="white", edgecolor=_HATCH, hatch="xxx", linewidth=0),
    ]
    labels = ["a layer's window", "not finite"]
    if fidelity.window is not None:
        for end in _ends(fidelity.window, scales, edges):
            axes.axvline(
                end, color=_MODEL, linewidth=2.4, linestyle=_DASHES, zorder=5, clip_on=False
            )
        handles.append(Line2D([], [], color=_MODEL, linewidth=2.4, linestyle=_DASHES))
        labels.append("the model's window")
    layer_rows.finish(axes, [layer.path for layer in layers])
    log2_axis.below(axes, edges[0], edges[-1], "Loss scale (log₂ axis)")
    bar = drawn.colorbar(mesh, ax=axes, orientation="horizontal", aspect=34, pad=0.01)
    bar.set_label("Relative error (log colour)")
    low, high = (math.log10(100 * end) for end in (lightest, darkest))
    places = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    bar.ax.xaxis.set_major_locator(FixedLocator([10.0 ** (n - 2) for n in places]))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{style.plain_number(100 * x)} %"))
    style.legend(drawn, handles, labels)
    return drawn, Picture(
        file=FILE,
        title="Each layer's error at each loss scale",
        alt=_alt(fidelity, layers, errors),
        caption=_caption(fidelity, layers),
    )


def _errors(points: Sequence[Point], scales: Sequence[float]) -> list[float]:
    """By scale: infinite where an entry is not finite, NaN where the scale was not tried."""
    found = {
        point.log2_scale: math.inf if point.relative_error is None else point.relative_error
        for point in points
    }
    return [found.get(scale, math.nan) for scale in scales]


def _edges(scales: Sequence[float]) -> list[float]:
    """Columns meet half way between their scales."""
    between = [(low + high) / 2 for low, high in itertools.pairwise(scales)]
    first = scales[0] - (between[0] - scales[0] if between else 0.5)
    last = scales[-1] + (scales[-1] - between[-1] if between else 0.5)
    return [first, *between, last]


def _ends(window: Window, scales: Sequence[float], edges: Sequence[float]) -> tuple[float, float]:
    """The outer edges of a window's columns."""
    left = dict(zip(scales, edges, strict=False))
    right = dict(zip(scales, edges[1:], strict=False))
    return (
        left.get(window.log2_min, window.log2_min - 0.5),
        right.get(window.log2_max, window.log2_max + 0.5),
    )


def _range(errors: np.ndarray) -> tuple[float, float]:
    """The errors of the lightest and of the darkest colour."""
    # No gradient at all is always dark, so that pages can be compared.
    high = max(1.0, float(errors.max()) if errors.size else 1.0)
    low = max(float(errors.min()) if errors.size else 1e-2, high / 10**_DECADES)
    # Whole decades, so that the colour bar can name its ends.
    low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
    return low, high if high > low else 10 * low


def _outline(axes: Axes, windows: Sequence[tuple[float, float] | None]) -> None:
    """Draws one line around all windows, which so many boxes would hide."""
    lines: list[list[tuple[float, float]]] = []
    for row, (above, own) in enumerate(zip([None, *windows], [*windows, None], strict=True)):
        lines += [[(x, row - 0.5), (x, row + 0.5)] for x in own or ()]
        # Between two rows: where one of them has a window and the other has not.
        ends = sorted([*(above or ()), *(own or ())])
        lines += [
            [(low, row - 0.5), (high, row - 0.5)]
            for low, high in zip(ends[::2], ends[1::2], strict=True)
        ]
    halo = [withStroke(linewidth=_LINE + 1.6, foreground="white")]
    axes.add_collection(
        LineCollection(lines, colors="#000000", linewidths=_LINE, path_effects=halo, zorder=4)
    )


def _alt(fidelity: Fidelity, layers: Sequence[LayerFidelity], errors: np.ndarray) -> str:
    broken = int(np.isinf(errors).sum())
    bounded = [layer for layer in layers if layer.window is not None]
    told = (
        f"Heat map of the relative error of {len(layers)} layers' gradients at {errors.shape[1]} "
        f"loss scales; {broken} of {errors.size} cells are not finite. "
        f"{len(bounded)} of the layers have a window. "
    )
    for layer in fidelity_points.telling_layers(fidelity)[:2]:
        told += f"{layer.path}'s is {layer.window}. " if layer.window else ""
    return told + (f"The model's window is {fidelity.window}." if fidelity.window else "")


def _caption(fidelity: Fidelity, layers: Sequence[LayerFidelity]) -> str:
    without = sum(layer.window is None for layer in layers)
    told = [
        f"The gradient of each layer's weights under {fidelity_points.SCALED} against "
        f"{fidelity.reference}'s, the first layer on top; light is a small error."
    ]
    if without:
        told.append(f"Layers without a window: {without}; the table says why.")
    if fidelity.window is None:
        told.append("No column lies in every layer's window.")
    weightless = [layer.path for layer in layers if not layer.points]
    if weightless:
        told.append(
            f"Without weights, but with a window that bounds the model's: {', '.join(weightless)}, "
            "by the gradient with respect to its outputs."
        )
    left_out = len(fidelity.layers) - len(layers)
    told.append(layer_rows.told(len(layers), left_out, "no gradient of weights is there"))
    return " ".join(part for part in told if part)
