"""Which layers to compute in float32, so that some loss scale serves all the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tfamp.diagnosis import layer_windows, tally, window
from tfamp.diagnosis.layer_windows import Windows
from tfamp.diagnosis.non_finite import first_non_finite_output
from tfamp.diagnosis.sweep import HALF, SINGLE, Sweep

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
    blamed = [path for path, each in found.layers.items() if _is_stuck(tried, found, path)]
    if blamed:
        # The last on the way forward is the first on the way back.
        culprits = [_culprit(tried, blamed[-1], max(layer_windows.scales_of(tried)))]
    else:
        culprits = [
            _culprit(tried, path, _outside(tried, found, path))
            for path in window.apart(found.limiting)
        ]
    can = [path for path in half_layers(tried) if path not in chosen]
    return list(dict.fromkeys(path for path in culprits if path in can))


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


def _culprit(tried: Sweep, path: str, scale: int) -> str:
    """The layer that does the damage which is seen in another one's gradients.

    The gradient with respect to a layer's output is computed by what takes that output, in what
    that computes in. Where it is at fault already, the layer itself is innocent.
    """
    side = tried.activations
    if path not in side[HALF, scale] or not _is_worse(tried, path, scale):
        return path
    order = half_layers(tried)
    later = order[order.index(path) + 1 :] if path in order else []
    if path not in order:
        everywhere = _paths(tried)
        later = [each for each in everywhere[everywhere.index(path) + 1 :] if each in order]
    return later[0] if later else path


def _is_worse(tried: Sweep, path: str, scale: int) -> bool:
    """Whether a layer's activation gradient is worse at a scale than at its best."""
    errors = {
        each: tally.relative_error(tried.activations[HALF, each][path], 0.0)
        for each in layer_windows.scales_of(tried)
        if path in tried.activations[HALF, each]
    }
    here, known = errors[scale], [error for error in errors.values() if error is not None]
    return here is None or here > window.TOLERANCE * min(known)
