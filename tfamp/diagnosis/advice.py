"""What to set: a static scale, a start for a dynamic one, layers for float32."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras

from tfamp.diagnosis import cure
from tfamp.diagnosis.layer_windows import Windows
from tfamp.diagnosis.probe import Probe
from tfamp.diagnosis.sweep import Say, Sweep
from tfamp.run.config import SCALE_SETTINGS, Config
from tfamp.run.fidelity import Advice, Window
from tfamp.run.kinds import Patterns
from tfamp.run.ranges import written
from tfamp.run.scale_rules import LOSS_SCALE, ScaleRules

# Doublings that a dynamic scale is left below the window's upper wall, where there is room.
HEADROOM = 2


class Advised(NamedTuple):
    """What the loss scale of a model should be.

    Attributes:
        window: Of the model as it is; None with `why`.
        why: Why there is none.
        advice: What to set.
    """

    window: Window | None
    why: str | None
    advice: Advice


def advise(
    model: keras.Model,
    probe: Probe,
    batch: Sequence[Any],
    log2_scales: Sequence[int] = range(25),
    say: Say = lambda text: None,
) -> Advised:
    """Measures mixed_float16 alone, on one batch, and says what to set.

    Args:
        model: The model.
        probe: Takes passes of it.
        batch: (inputs, targets) or (inputs, targets, sample_weight).
        log2_scales: log2 of the scales to try.
        say: Is told what goes on.

    Raises:
        NonFiniteReference: The loss or a gradient is not finite in float64.
    """
    sweep = Sweep(model, probe, [batch], say)
    found, overflowing = cure.measured_windows(sweep, log2_scales)
    cured = cure.cure(sweep, found, overflowing)
    return Advised(found.window, found.why, advice(found, cured))


def advice(found: Windows, cured: cure.Cure) -> Advice:
    """What to set.

    Args:
        found: The windows of the model as it is.
        cured: What gives it one where it has none.
    """
    layers, serves = cured.float32, cured.windows
    flags = _float32_flags(layers)
    skips = expected_skips(serves)
    if serves.window is None:
        said = f"No loss scale serves all layers: {found.why}."
        if layers:
            said += f" {_listed(layers)} in float32 is not enough."
        return Advice(
            static_scale=None, initial_scale=None, expected_skips=skips,
            float32_layers=layers, flags=flags, summary=said,
        )  # fmt: skip
    static, initial = static_scale(serves.window), initial_scale(serves.window)
    said = (
        f"A static loss scale of {written(static)}, or a dynamic one that starts at "
        f"{written(initial)}"
    )
    if layers:
        said += f", with {_listed(layers)} in float32"
    said += _about_skips(skips)
    return Advice(
        static_scale=static,
        initial_scale=initial,
        expected_skips=skips,
        float32_layers=layers,
        flags=(*_scale_flags(initial), *flags),
        summary=said,
    )


def static_scale(window: Window) -> float:
    """The power of two amid a window, on a logarithmic scale; a wall may be on either side."""
    return _within((window.log2_min + window.log2_max) // 2)


def initial_scale(window: Window) -> float:
    """Where a dynamic scale should start: in the window, a little below its upper wall.

    A larger scale leaves less to underflow as gradients shrink; where overflow begins was not
    seen, the default scale is as good as any in the window.
    """
    if window.is_open:
        start = min(_log2(ScaleRules.initial_scale), window.log2_max)
    else:
        start = window.log2_max - HEADROOM
    return _within(max(start, window.log2_min))


def expected_skips(found: Windows) -> int | None:
    """Steps that a dynamic scale skips first where it starts at the default scale.

    None where no scale was seen to be finite, or not whether the scales in between are.
    """
    start = _log2(ScaleRules.initial_scale)
    below = [scale for scale, is_finite in found.finite.items() if is_finite and scale <= start]
    if not below:
        return None
    between = range(max(below) + 1, start + 1)
    return len(between) if all(scale in found.finite for scale in between) else None


def _scale_flags(initial: float) -> tuple[str, ...]:
    flags = [
        "--policy=mixed_float16",
        "--loss_scale=dynamic",
        f"--initial_loss_scale={written(initial)}",
    ]
    if initial < ScaleRules.min_scale:
        flags.append(
            f"--{_setting_of('min_scale')}={written(max(initial / 4, LOSS_SCALE.least or 0))}"
        )
    if initial > ScaleRules.max_scale:
        flags.append(f"--{_setting_of('max_scale')}={written(initial)}")
    return tuple(flags)


def _setting_of(rule: str) -> str:
    return next(name for name, each in SCALE_SETTINGS.items() if each == rule)


def _float32_flags(paths: Sequence[str]) -> tuple[str, ...]:
    if not paths:
        return ()
    patterns = [f"^{re.escape(path)}$" for path in paths]
    return (f"--float32_layers={Patterns().write(patterns)}",)


def _about_skips(skips: int | None) -> str:
    if not skips:
        return "."
    default = written(Config.initial_loss_scale)
    return f"; one that starts at {default} skips its first {skips} steps."


def _within(log2_scale: int) -> float:
    return min(max(2.0**log2_scale, LOSS_SCALE.least or 0.0), 2.0**126)


def _log2(scale: float) -> int:
    return round(math.log2(scale))


def _listed(paths: Iterable[Any]) -> str:
    return ", ".join(map(str, paths))
