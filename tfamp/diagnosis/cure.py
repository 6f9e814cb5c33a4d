"""Which layers to compute in float32, so that some loss scale serves all the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfamp.diagnosis import layer_windows, tally, window
from tfamp.diagnosis.layer_windows import Windows
from tfamp.diagnosis.non_finite import first_non_finite_output
from tfamp.diagnosis.sweep import HALF, SINGLE, Setting, Sweep
from tfamp.diagnosis.tally import Tally

# The smallest scale that is tried where overflow begins below those asked for.
LOWEST = -24
_ROUNDS = 4


class Cure(NamedTuple):
    """What it takes.

    Attributes:
        float32: Paths of the layers, in the order of the way forward.
        windows: The windows with these in float32.
    """

    float32: tuple[str, ...]
    windows: Windows


def measured_windows(sweep: Sweep, log2_scales: Sequence[int]) -> tuple[Windows, str | None]:
    """Sweeps mixed_float16 over scales, below 1 too where overflow begins there.

    Args:
        sweep: Takes the passes, and keeps what they say.
        log2_scales: log2 of the scales to try.

    Returns:
        The windows, and the path of the first layer whose output overflows in float16; None where
        none does.
    """
    scales = sorted(set(log2_scales))
    sweep.measure([SINGLE, *((HALF, scale) for scale in scales)])
    finite = {scale: layer_windows.all_finite(sweep, scale) for scale in scales}
    overflowing = None
    if not any(finite.values()):
        overflowing = _overflowing(sweep)
    if overflowing is None and window.extends_below(scales, finite):
        sweep.measure((HALF, scale) for scale in range(scales[0] - 1, LOWEST - 1, -1))
    return layer_windows.windows(sweep, _paths(sweep), overflowing), overflowing


def cure(sweep: Sweep, found: Windows, overflowing: str | None) -> Cure:
    """Looks for layers with which in float32 the others have a window; each try is measured.

    Args:
        sweep: What was measured without any.
        found: Its windows.
        overflowing: As from `measured_windows`.

    Returns:
        The layers that were tried last, and the windows with them, with or without one for the
        model; no layers where there is a window already or none to try.
    """
    scales = [scale for scale in layer_windows.scales_of(sweep) if scale >= 0]
    chosen: list[str] = []
    tried = sweep
    for _ in range(_ROUNDS):
        if found.window is not None:
            break
        more = (
            _overflowing_layers(sweep, chosen)
            if overflowing is not None
            else _contradicting(tried, found, chosen)
        )
        if not more:
            break
        chosen += more
        tried = Sweep(sweep.model, sweep.probe, sweep.batches, sweep.say, float32=chosen)
        found, overflowing = measured_windows(tried, scales or [0])
    order = _paths(sweep)
    return Cure(tuple(sorted(chosen, key=order.index)), found)


def half_layers(sweep: Sweep) -> list[str]:
    """Paths of the layers that compute in float16, in the order of the way forward."""
    computes_in = sweep.precision(HALF).computes_in
    return [path for path in _paths(sweep) if computes_in.get(path) == "float16"]


def _paths(sweep: Sweep) -> list[str]:
    return [*sweep.reached, *(path for path in sweep.probe.layers if path not in sweep.reached)]


def _overflowing(sweep: Sweep, float32: Sequence[str] = ()) -> str | None:
    precision = sweep.probe.mixed("float16", float32=[*sweep.float32, *float32])
    for batch in sweep.batches:
        path = first_non_finite_output(sweep.probe, batch, precision)
        if path is not None:
            return path
    return None


def _overflowing_layers(sweep: Sweep, chosen: Sequence[str]) -> list[str]:
    """The layers that overflow on the way forward, one after the other as each is cured."""
    can = half_layers(sweep)
    more: list[str] = []
    while True:
        path = _overflowing(sweep, [*chosen, *more])
        if path not in can or path in (*chosen, *more):
            return more
        sweep.say(f"{path} in float32")
        more.append(path)


def _contradicting(tried: Sweep, found: Windows, chosen: Sequence[str]) -> list[str]:
    """The layers to blame for windows that have nothing in common."""
    stuck = [path for path, each in found.layers.items() if _is_stuck(tried, found, path)]
    if stuck:
        # The last on the way forward is the first on the way back.
        return _culprits(tried, chosen, stuck[-1], min(layer_windows.scales_of(tried)))
    more: list[str] = []
    for path in window.apart(found.limiting):
        if path not in more:
            more += _culprits(tried, [*chosen, *more], path, _outside(tried, found, path))
    return more


def _is_stuck(tried: Sweep, found: Windows, path: str) -> bool:
    is_reached = path in tried.weights[SINGLE] or path in tried.activations[SINGLE]
    return is_reached and path not in found.limiting


def _outside(tried: Sweep, found: Windows, path: str) -> int:
    """The tried scale next to a layer's window, on the side where the others' are."""
    mine, scales = found.limiting[path], layer_windows.scales_of(tried)
    others = [each for other, each in found.limiting.items() if other != path]
    middle = sum(each.log2_min + each.log2_max for each in others) / (2 * len(others))
    above = [scale for scale in scales if scale > mine.log2_max]
    below = [scale for scale in scales if scale < mine.log2_min]
    is_above = middle > (mine.log2_min + mine.log2_max) / 2
    if above and (is_above or not below):
        return above[0]
    return below[-1] if below else scales[0]


def _culprits(tried: Sweep, chosen: Sequence[str], path: str, scale: int) -> list[str]:
    """The layers that must be in float32 for a layer's gradients to be right at a scale.

    The gradient with respect to a layer's output is made by what takes that output, and in what
    that computes in; so the layer may be innocent, and the next one to blame. Each is tried.
    """
    can = [each for each in half_layers(tried) if each not in chosen]
    order = _paths(tried)
    later = [each for each in order[order.index(path) + 1 :] if each in can]
    itself = [path] if path in can else []
    tries = [itself, later[:1], itself + later[:1]]
    for more in tries:
        if more and _is_right(tried, [*chosen, *more], path, scale):
            return more
    return tries[-1]


def _is_right(tried: Sweep, float32: Sequence[str], path: str, scale: int) -> bool:
    """Whether a layer's gradients at a scale are as good as at its best, with some in float32."""
    tried.say(f"{', '.join(float32)} in float32")
    alone = Sweep(
        tried.model, tried.probe, tried.batches[:1], tried.say, float32=float32, is_eager=True
    )
    alone.measure([(HALF, scale)])
    for side, before in (
        (alone.weights, tried.weights),
        (alone.activations, tried.activations),
    ):
        if path not in side[HALF, scale]:
            continue
        error = tally.relative_error(side[HALF, scale][path], 0.0)
        if error is None or error > 2 * _best_error(before, path):
            return False
    return True


def _best_error(tallies: Mapping[Setting, Mapping[str, Tally]], path: str) -> float:
    found = [
        tally.relative_error(by_layer[path], 0.0)
        for (name, _), by_layer in tallies.items()
        if name == HALF and path in by_layer
    ]
    return min((error for error in found if error is not None), default=1.0)
