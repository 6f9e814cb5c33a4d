"""The tables of a fidelity's page."""

from __future__ import annotations

from collections.abc import Sequence

from tfamp.reporting import fidelity_points
from tfamp.reporting.pages import formatting
from tfamp.reporting.pages.fidelity_sentences import NOT_FINITE, power, share, window_ends
from tfamp.reporting.pages.table import Table, TableCell, words
from tfamp.run import schema
from tfamp.run.fidelity import ErrorBudget, Fidelity, LayerFidelity, Point, RankedLayer, Window

_NOT_TRIED = "not tried"
# Of the ranked layers, which may be hundreds that remove next to nothing.
_RANKED = 12
_OF_OUTPUTS = "of its outputs' gradients"


def precisions(fidelity: Fidelity) -> Table:
    """Each precision, mixed_float16 at the scales that tell."""
    scales = _telling_scales(fidelity)
    rows = [
        (point.precision, _point_cells(point, "needs none", fidelity))
        for point in fidelity_points.unscaled(fidelity.precisions)
    ]
    for point in fidelity_points.scaled(fidelity.precisions):
        if point.log2_scale in scales:
            remark = ", ".join(scales[point.log2_scale])
            rows.append((point.precision, _point_cells(point, remark, fidelity)))
    tried = len(fidelity_points.scaled(fidelity.precisions))
    left_out = tried + len(fidelity_points.unscaled(fidelity.precisions)) - len(rows)
    return Table(
        f"The gradient of all weights against {fidelity.reference}'s, and what the activation "
        "gradients lost."
        + (f" The other {left_out} scales are in the picture below." if left_out else ""),
        (
            "Precision",
            "Loss scale",
            "Relative error",
            "Cosine",
            "Underflow",
            "Subnormal",
            "Not finite",
            "Activation underflow",
            "Why this scale",
        ),
        tuple(rows),
    )


def _point_cells(point: Point, remark: str, fidelity: Fidelity) -> tuple[TableCell, ...]:
    beside = next(
        (
            other
            for other in fidelity.activation_precisions
            if (other.precision, other.log2_scale) == (point.precision, point.log2_scale)
        ),
        None,
    )
    scale = "none" if point.log2_scale is None else power(point.log2_scale)
    return (
        TableCell(scale),
        TableCell(share(point.relative_error)),
        TableCell(_cosine(point)),
        TableCell(share(point.underflow_fraction)),
        TableCell(share(point.subnormal_fraction)),
        TableCell(share(point.non_finite_fraction)),
        TableCell(formatting.DASH if beside is None else share(beside.underflow_fraction)),
        words(remark),
    )


def _cosine(point: Point) -> str:
    if point.cosine is None:
        return "all zero" if point.relative_error is not None else NOT_FINITE
    return formatting.text(point.cosine, formatting.loss)


def _telling_scales(fidelity: Fidelity) -> dict[float, list[str]]:
    """Scales to show of mixed_float16, and what each is."""
    found: dict[float, list[str]] = {0.0: ["no scaling"]}

    def tell(log2_scale: float | None, what: str) -> None:
        if log2_scale is not None:
            found.setdefault(float(log2_scale), []).append(what)

    best = fidelity_points.best(fidelity.precisions)
    tell(best.log2_scale if best else None, "smallest error")
    if fidelity.window is not None:
        tell(fidelity.window.log2_min, "the window begins")
        tell(fidelity.window.log2_max, "the window ends")
    tell(fidelity_points.advised_log2_scale(fidelity), "advised")
    tell(fidelity_points.default_log2_scale(), "default start")
    tell(fidelity.settled_log2_scale, "where the run ended")
    broken = [
        point.log2_scale
        for point in fidelity_points.scaled(fidelity.precisions)
        if point.relative_error is None
    ]
    tell(broken[0] if broken else None, f"first that is {NOT_FINITE}")
    return found


def layers(fidelity: Fidelity) -> Table | None:
    """Each layer's window, errors and underflow; None where no layer has a gradient."""
    shown = [layer for layer in fidelity.layers if layer.points or layer.activation_points]
    if not shown:
        return None
    left_out = len(fidelity.layers) - len(shown)
    more = f" Without a gradient, and left out: {left_out} more." if left_out else ""
    if not fidelity_points.is_asked(fidelity):
        return _unscaled_layers(fidelity, shown, more)
    return Table(
        f"Layers in the order of the way forward, under {fidelity_points.SCALED}.{more}",
        (
            "Layer",
            "Computes in",
            "Window",
            "Error at scale 1",
            "Smallest error",
            "Underflow at scale 1",
            "Activation underflow at scale 1",
        ),
        tuple((layer.path, _layer_cells(layer)) for layer in shown),
    )


def _unscaled_layers(fidelity: Fidelity, shown: Sequence[LayerFidelity], more: str) -> Table:
    """Each layer's error under the precisions that need no loss scale."""
    names = [point.precision for point in fidelity_points.unscaled(fidelity.precisions)]
    rows = []
    for layer in shown:
        points = {point.precision: point for point in fidelity_points.judged(layer)}
        whose = "" if layer.points else _OF_OUTPUTS
        cells = [
            TableCell(share(points[name].relative_error), small=whose)
            if name in points
            else TableCell(formatting.DASH)
            for name in names
        ]
        rows.append((layer.path, (words(layer.computes_in), *cells)))
    return Table(
        f"Layers in the order of the way forward, and the error of each one's gradient.{more}",
        ("Layer", "Computes in", *(f"Error under {name}" for name in names)),
        tuple(rows),
    )


def _layer_cells(layer: LayerFidelity) -> tuple[TableCell, ...]:
    points = fidelity_points.judged(layer)
    first, best = fidelity_points.at(points, 0.0), fidelity_points.best(points)
    whose = "" if layer.points else _OF_OUTPUTS
    if layer.window is None:
        window = words(layer.why or formatting.DASH)
    else:
        window = words(window_ends(layer.window))
    if best is None or best.log2_scale is None:
        is_tried = bool(fidelity_points.scaled(points))
        smallest = TableCell(NOT_FINITE if is_tried else formatting.DASH)
    else:
        smallest = TableCell(share(best.relative_error), small=f"at {power(best.log2_scale)}")
    error = _missing(points) if first is None else share(first.relative_error)
    return (
        words(layer.computes_in),
        window,
        TableCell(error, small=whose),
        smallest,
        _underflow(layer.points),
        _underflow(layer.activation_points),
    )


def _underflow(points: Sequence[Point]) -> TableCell:
    first = fidelity_points.at(points, 0.0)
    return TableCell(_missing(points) if first is None else share(first.underflow_fraction))


def _missing(points: Sequence[Point]) -> str:
    return _NOT_TRIED if points else formatting.DASH


def ranked(fidelity: Fidelity) -> Table | None:
    """The layers by what of the error goes with each in float32; None without a ranking."""
    budget = fidelity.error_budget
    if budget is None or not budget.layers:
        return None
    examples = "" if budget.num_examples is None else f", on {budget.num_examples} examples"
    left = len(budget.layers) - _RANKED
    others = f" The other {left} are in fidelity.json." if left > 0 else ""
    return Table(
        "What becomes of the whole gradient's error when one layer alone computes in float32, at "
        f"the best scale{examples}.{others}",
        ("Layer in float32", "Relative error", "Removed"),
        tuple(
            (
                layer.path,
                (
                    TableCell(share(layer.relative_error)),
                    TableCell(share(layer.removed)),
                ),
            )
            for layer in budget.layers[:_RANKED]
        ),
    )


# Figures to explain: a name, and the key that is declared with its meaning.
_EXPLAINED = (
    ("Relative error", Point, "relative_error"),
    ("Cosine", Point, "cosine"),
    ("Underflow", Point, "underflow_fraction"),
    ("Subnormal", Point, "subnormal_fraction"),
    ("Not finite", Point, "non_finite_fraction"),
    ("The window begins", Window, "log2_min"),
    ("The window ends", Window, "log2_max"),
    ("Error forward", ErrorBudget, "forward"),
    ("Error backward", ErrorBudget, "backward"),
    ("Scale 1 adds", ErrorBudget, "underflow_at_scale_1"),
    ("Removed", RankedLayer, "removed"),
)


def meanings() -> Table:
    """What each figure is, as fidelity.json declares it."""
    return Table(
        "As fidelity.json declares them.",
        ("Figure", "Meaning"),
        tuple((name, (words(_meaning(cls, key)),)) for name, cls, key in _EXPLAINED),
    )


def _meaning(cls: type, key: str) -> str:
    # What a null stands for, the page says in its place.
    told = schema.meaning(cls, key).partition("; null")[0].replace("`", "")
    return f"{told[0].upper()}{told[1:]}."
