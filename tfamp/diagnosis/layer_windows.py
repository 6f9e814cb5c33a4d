"""Each layer's window of loss scales, the model's, and why there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tfamp.diagnosis import tally, window
from tfamp.diagnosis.sweep import HALF, SINGLE, Setting, Sweep
from tfamp.diagnosis.tally import Tally
from tfamp.diagnosis.window import Bounds, Curve
from tfamp.run.fidelity import Window

# Two errors below this differ by how the reference is kept.
_SMALLEST_SLACK = 2.0**-24


class LayerWindow(NamedTuple):
    """A layer's window, or why it has none."""

    window: Window | None
    why: str | None


@dataclasses.dataclass(frozen=True)
class Windows:
    """All windows of a model.

    Attributes:
        layers: By path.
        window: The model's.
        why: Why it has none.
        bounds: What the layers' windows leave; None where a layer is finite at no scale.
        limiting: What each layer that takes part allows: its window, or where it is finite.
        finite: By log2 of the scale, whether all weights' gradients are finite: no step is skipped.
    """

    layers: dict[str, LayerWindow]
    window: Window | None
    why: str | None
    bounds: Bounds | None
    limiting: dict[str, Window]
    finite: dict[int, bool]


def floors(tallies: Mapping[Setting, Mapping[str, Tally]]) -> dict[str, float]:
    """What each layer's errors are relative to at least; see `tally.floor_of`.

    Args:
        tallies: By setting and layer.
    """
    found: dict[str, dict[str, list[Tally]]] = {}
    for (precision, _), by_layer in tallies.items():
        for path, each in by_layer.items():
            found.setdefault(path, {}).setdefault(precision, []).append(each)
    return {
        path: tally.floor_of(
            next(iter(by_precision.values()))[0].reference, tally.terms_size(by_precision)
        )
        for path, by_precision in found.items()
    }


def scales_of(sweep: Sweep) -> list[int]:
    """log2 of the scales that mixed_float16 was tried at, upwards."""
    return sorted(scale for name, scale in sweep.weights if name == HALF and scale is not None)


def all_finite(sweep: Sweep, scale: int) -> bool:
    """Whether every gradient is finite at a scale, of weights and of outputs."""
    setting = (HALF, scale)
    found = [*sweep.weights[setting].values(), *sweep.activations[setting].values()]
    return all(each.is_finite for each in found)


def windows(sweep: Sweep, paths: Iterable[str], overflowing: str | None) -> Windows:
    """The windows of a model's layers and its own.

    Args:
        sweep: What was measured; float32 and mixed_float16 at some scales.
        paths: The layers.
        overflowing: Path of the first layer whose output is not finite in float16; None where all
            are.
    """
    scales = scales_of(sweep)
    weight_floors, activation_floors = floors(sweep.weights), floors(sweep.activations)
    layers: dict[str, LayerWindow] = {}
    limiting: dict[str, Window] = {}
    for path in paths:
        by_scale = {scale: _finite(sweep, path, scale) for scale in scales}
        side, floor = sweep.weights, weight_floors.get(path)
        if floor is None:
            side, floor = sweep.activations, activation_floors.get(path)
        if floor is None:
            layers[path] = LayerWindow(None, "the loss does not depend on it")
            continue
        single = side[SINGLE].get(path)
        slack = (tally.relative_error(single, floor) or 0.0) if single else 0.0
        errors = {
            scale: tally.relative_error(side[HALF, scale][path], floor) if is_finite else None
            for scale, is_finite in by_scale.items()
            if path in side[HALF, scale]
        }
        why = _why_none(errors, floor, next(iter(side.values()))[path].reference, overflowing)
        found = window.window_of(Curve(errors, max(slack, _SMALLEST_SLACK), is_held=why is None))
        if found is not None:
            limiting[path] = found
        layers[path] = LayerWindow(found if why is None else None, why)
    stuck = [path for path in layers if path not in limiting and _is_reached(sweep, path)]
    finite = {
        scale: all(each.is_finite for each in sweep.weights[HALF, scale].values())
        for scale in scales
    }
    if stuck:
        why = f"{stuck[0]}: {layers[stuck[0]].why}"
        return Windows(layers, None, why, None, limiting, finite)
    bounds = window.bounds_of(limiting)
    why = None if bounds.window else _why_empty(bounds)
    return Windows(layers, bounds.window, why, bounds, limiting, finite)


def _is_reached(sweep: Sweep, path: str) -> bool:
    return path in sweep.weights[SINGLE] or path in sweep.activations[SINGLE]


def _finite(sweep: Sweep, path: str, scale: int) -> bool:
    sides = (sweep.weights[HALF, scale].get(path), sweep.activations[HALF, scale].get(path))
    return all(each is None or each.is_finite for each in sides)


def _why_none(
    errors: Mapping[int, float | None], floor: float, reference: float, overflowing: str | None
) -> str | None:
    known = [error for error in errors.values() if error is not None]
    if not known:
        tried = _tried(list(errors))
        if overflowing is None:
            return f"its gradient is not finite at any scale from {tried}"
        return (
            f"no scale keeps its gradient finite: the output of {overflowing} overflows in float16 "
            "on the way forward"
        )
    if reference == 0 or floor > 0:
        return "its gradient is zero up to rounding"
    if min(known) >= 1:
        return (
            f"float16 leaves nothing of its gradient at any scale: the error is {min(known):.2g} "
            "of it at best"
        )
    return None


def _why_empty(bounds: Bounds) -> str:
    if bounds.needs is None or bounds.overflows is None:
        return "no layer has a gradient that float16 could lose"
    return (
        f"{bounds.needs} needs a scale of 2^{bounds.least} or more, and {bounds.overflows} bears "
        f"none above 2^{bounds.most}; let one of them compute in float32"
    )


def _tried(scales: Sequence[int]) -> str:
    return f"2^{min(scales)} to 2^{max(scales)}"
