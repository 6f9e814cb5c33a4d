"""What a fidelity says at which loss scale: points and layers picked out to be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfamp.run.fidelity import Fidelity, LayerFidelity, Point
from tfamp.run.scale_rules import ScaleRules

SCALED = "mixed_float16"


def scaled(points: Sequence[Point]) -> list[Point]:
    """mixed_float16's, from the smallest scale up."""
    found = [p for p in points if p.precision == SCALED and p.log2_scale is not None]
    return sorted(found, key=_scale_of)


def unscaled(points: Sequence[Point]) -> list[Point]:
    """Those of precisions that need no loss scale, in their order."""
    return [point for point in points if point.log2_scale is None]


def at(points: Sequence[Point], log2_scale: float | None) -> Point | None:
    """mixed_float16's at one scale; None where it was not tried."""
    return next((point for point in scaled(points) if point.log2_scale == log2_scale), None)


def best(points: Sequence[Point]) -> Point | None:
    """mixed_float16's of the smallest error, at the smallest such scale; None where none is."""
    found = [point for point in scaled(points) if point.relative_error is not None]
    return min(found, key=lambda point: point.relative_error or 0.0, default=None)


def judged(layer: LayerFidelity) -> tuple[Point, ...]:
    """What a layer's window is of: its weights' gradients, without weights those of its outputs."""
    return layer.points or layer.activation_points


def is_asked(fidelity: Fidelity) -> bool:
    """Whether mixed_float16 was measured."""
    return bool(scaled(fidelity.precisions))


def advised_log2_scale(fidelity: Fidelity) -> float | None:
    """log2 of the static scale that is advised, else of the initial one; None without either."""
    advice = fidelity.advice
    scale = advice and (advice.static_scale or advice.initial_scale)
    return math.log2(scale) if scale else None


def telling_layers(fidelity: Fidelity) -> list[LayerFidelity]:
    """Layers that bound the model's scales, and the first of the budget; each once.

    The first has the window that begins last, the second the one that ends first: where no scale
    is in every window, these contradict each other.
    """
    bounded = [(layer.window, layer) for layer in fidelity.layers if layer.window is not None]
    found: list[LayerFidelity] = []
    if bounded:
        found.append(max(bounded, key=lambda pair: pair[0].log2_min)[1])
        # A wall before an end of what was tried.
        found.append(min(bounded, key=lambda pair: (pair[0].log2_max, pair[0].is_open))[1])
    budget = fidelity.error_budget
    ranked = budget.layers[0].path if budget and budget.layers else None
    found += [layer for layer in fidelity.layers if layer.path == ranked and judged(layer)]
    return list({layer.path: layer for layer in found}.values())


def default_log2_scale() -> float:
    """log2 of the scale that a dynamic one starts at unless told otherwise."""
    return math.log2(ScaleRules().initial_scale)


def _scale_of(point: Point) -> float:
    return point.log2_scale or 0.0
