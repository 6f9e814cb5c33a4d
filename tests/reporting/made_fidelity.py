"""Fidelities without a model: gradients of known sizes, rounded as each precision would.

The gradients are drawn, so that walls, valley, windows and histograms belong together as a real
model's do; what rounds forward is a share of noise that no scale changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tfamp.run.fidelity import (
    Advice,
    ErrorBudget,
    Fidelity,
    Histogram,
    LayerFidelity,
    Point,
    RankedLayer,
    Window,
)

VERSIONS = {"python": "3.11.2", "tfamp": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1"}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
_DTYPES = {
    "float32": np.float32,
    "mixed_bfloat16": ml_dtypes.bfloat16,
    "mixed_float16": np.float16,
}
_SMALLEST_NORMAL = {
    name: float(ml_dtypes.finfo(dtype).smallest_normal) for name, dtype in _DTYPES.items()
}
# Relative size of the noise that the way forward makes.
_FORWARD = {"float32": 1e-6, "mixed_bfloat16": 0.2, "mixed_float16": 0.05}


def made(
    sizes: Mapping[str, float],
    *,
    spread: float = 2.0,
    log2_scales: Sequence[int] = range(25),
    precisions: Sequence[str] = PRECISIONS,
    without_points: Sequence[str] = (),
    weightless: Sequence[str] = (),
    forward_overflow: bool = False,
    entries: int = 400,
    **changes: Any,
) -> Fidelity:
    """Makes a fidelity.

    Args:
        sizes: log2 of the typical gradient of each layer's weights, by the layers' paths. Its
            activation gradients are 2^4 times smaller, half of them zero.
        spread: Standard deviation of log2 of the gradients' sizes.
        log2_scales: Static scales of mixed_float16.
        precisions: Those that were asked for.
        without_points: Layers that have neither weights nor gradients.
        weightless: Layers without weights, whose gradients are those of their outputs.
        forward_overflow: Whether mixed_float16 is not finite at any scale.
        entries: Of each layer's gradient.
        **changes: Fields of the fidelity to set otherwise.
    """
    draw = np.random.default_rng(0)
    scales = list(log2_scales) if "mixed_float16" in precisions else []
    held = [path for path in sizes if path not in without_points]
    weights = {
        path: _drawn(draw, sizes[path], spread, entries) for path in held if path not in weightless
    }
    activations = {path: _drawn(draw, sizes[path] - 4, spread, entries) for path in held}
    for gradient in activations.values():
        gradient[::2] = 0.0

    def points(gradient: np.ndarray) -> tuple[Point, ...]:
        unscaled = [name for name in precisions if name != "mixed_float16"]
        asked = [(name, None) for name in unscaled] + [("mixed_float16", s) for s in scales]
        return tuple(
            _point(gradient, name, scale, forward_overflow and name == "mixed_float16")
            for name, scale in asked
        )

    layers = []
    for index, (path, size) in enumerate(sizes.items()):
        if path not in held:
            layers.append(LayerFidelity(path=path, computes_in="float16"))
            continue
        own = points(weights[path]) if path in weights else ()
        of_outputs = points(activations[path])
        window, why = _window(own or of_outputs)
        layers.append(
            LayerFidelity(
                path=path,
                computes_in="float16",
                points=own,
                activation_points=of_outputs,
                window=window,
                why=why,
                weight_exponents=_exponents(weights[path]) if own else None,
                activation_exponents=_exponents(activations[path]),
                output_log2_size=1.5 * math.sin(index),
                gradient_log2_size=size - 4 + spread,
            )
        )
    whole = np.concatenate([*weights.values()]) if weights else np.zeros(1)
    of_activations = np.concatenate([*activations.values()]) if held else np.zeros(1)
    window, why = _intersection([layer for layer in layers if layer.activation_points])
    is_asked = "mixed_float16" in precisions
    return Fidelity(
        **{
            "model": "resnet20",
            "dataset": "fashion_mnist_mini",
            "device": "CPU:0 (a test's CPU)",
            "jit_compile": False,
            "training": True,
            "batch_size": 64,
            "num_batches": 2,
            "seed": 0,
            "command_line": ("/home/me/tfamp/fidelity.py", "--model=resnet20", "--out=fidelity"),
            "versions": VERSIONS,
            "reference": "float64",
            "precisions": points(whole),
            "activation_precisions": points(of_activations),
            "layers": tuple(layers),
            "window": window,
            "why": why,
            "error_budget": _budget(held, forward_overflow) if is_asked else None,
            "advice": _advice(window) if is_asked else None,
            "settled_log2_scale": 15.0 if is_asked else None,
            "limits": ("Measured on CPU:0: a GPU's kernels may round otherwise.",),
        }
        | changes
    )


def _drawn(draw: np.random.Generator, size: float, spread: float, entries: int) -> np.ndarray:
    return draw.choice((-1.0, 1.0), entries) * np.exp2(draw.normal(size, spread, entries))


def _point(gradient: np.ndarray, precision: str, scale: int | None, overflows: bool) -> Point:
    noise = _FORWARD[precision] * gradient * np.cos(np.arange(gradient.size))
    with np.errstate(over="ignore"):
        held = ((gradient + noise) * 2.0 ** (scale or 0)).astype(_DTYPES[precision])
    found = held.astype(np.float64) / 2.0 ** (scale or 0)
    if overflows:
        found[:2] = np.nan
    is_finite = bool(np.isfinite(found).all())
    norm = float(np.linalg.norm(gradient))
    error = float(np.linalg.norm(found - gradient)) / norm if is_finite else None
    cosine = None
    if is_finite and found.any():
        cosine = float(found @ gradient / np.linalg.norm(found) / norm)
    tiny = _SMALLEST_NORMAL[precision]
    sizes = np.abs(held.astype(np.float64))
    return Point(
        precision=precision,
        log2_scale=None if scale is None else float(scale),
        relative_error=error,
        cosine=cosine,
        underflow_fraction=float(np.mean((found == 0) & (gradient != 0))),
        subnormal_fraction=float(np.mean((sizes > 0) & (sizes < tiny))),
        non_finite_fraction=float(np.mean(~np.isfinite(found))),
    )


def _window(points: Sequence[Point]) -> tuple[Window | None, str | None]:
    errors = {
        int(p.log2_scale): p.relative_error
        for p in points
        if p.log2_scale is not None and p.relative_error is not None
    }
    if not errors:
        return None, "no scale leaves all of its gradient finite"
    good = [scale for scale, error in errors.items() if error <= 1.1 * min(errors.values())]
    tried = max(int(p.log2_scale) for p in points if p.log2_scale is not None)
    return Window(log2_min=min(good), log2_max=max(good), is_open=max(good) == tried), None


def _intersection(layers: Sequence[LayerFidelity]) -> tuple[Window | None, str | None]:
    if not layers or any(layer.window is None for layer in layers):
        return None, "block1 has no window"
    low = max(layers, key=lambda layer: layer.window.log2_min)
    high = min(layers, key=lambda layer: layer.window.log2_max)
    if low.window.log2_min > high.window.log2_max:
        return None, (
            f"{low.path} needs a scale of 2^{low.window.log2_min} or more, {high.path} one of "
            f"2^{high.window.log2_max} or less"
        )
    return (
        Window(
            log2_min=low.window.log2_min,
            log2_max=high.window.log2_max,
            is_open=high.window.is_open,
        ),
        None,
    )


def _exponents(gradient: np.ndarray) -> Histogram:
    found = np.floor(np.log2(np.abs(gradient[gradient != 0]))).astype(int)
    first = int(found.min())
    counts = tuple(int(count) for count in np.bincount(found - first))
    return Histogram(first=first, counts=counts, zeros=int((gradient == 0).sum()))


def _budget(paths: Sequence[str], overflows: bool) -> ErrorBudget:
    if overflows:
        return ErrorBudget(forward=None, backward=None, underflow_at_scale_1=None)
    return ErrorBudget(
        forward=0.0499,
        backward=0.0031,
        underflow_at_scale_1=0.41,
        best_log2_scale=9,
        num_examples=16,
        layers=tuple(
            RankedLayer(path=path, relative_error=0.05 - 0.02 / (n + 1), removed=0.4 / (n + 1))
            for n, path in enumerate(paths)
        ),
    )


def _advice(window: Window | None) -> Advice:
    if window is None:
        return Advice(
            static_scale=None,
            initial_scale=None,
            expected_skips=None,
            float32_layers=("block2",),
            flags=("--float32_layers=block2",),
            summary="No one scale serves every layer: compute block2 in float32.",
        )
    middle = 2.0 ** ((window.log2_min + window.log2_max) // 2)
    return Advice(
        static_scale=middle,
        initial_scale=2.0**window.log2_max,
        expected_skips=max(0, 15 - window.log2_max),
        flags=("--policy=mixed_float16", f"--initial_loss_scale={2.0**window.log2_max:g}"),
        summary=f"Start a dynamic scale at {2.0**window.log2_max:g}; {middle:g} is a static one.",
    )


RESNET_LIKE = {
    "stem": -24.0,
    **{f"stage{s}_block{b}_conv{c}": -20.0 - b - s for s in (1, 2) for b in (1, 2) for c in (1, 2)},
    "relu": -18.0,
    "flatten": 0.0,
    "head": -10.0,
}


@functools.cache
def healthy() -> Fidelity:
    """A resnet's: underflow wall, valley, overflow wall, and a window."""
    return made(RESNET_LIKE, without_points=("flatten",), weightless=("relu",))


@functools.cache
def contradiction() -> Fidelity:
    """Two layers that no one scale serves."""
    return made({"block1": -34.0, "block2": 4.0, "block3": -8.0}, spread=1.0)


@functools.cache
def no_window() -> Fidelity:
    """A layer whose gradient is not finite at any scale."""
    return made({"block1": 30.0, "block2": -6.0})


@functools.cache
def open_window() -> Fidelity:
    """No upper wall within the scales that were tried."""
    return made({"block1": -12.0, "block2": -14.0}, log2_scales=range(8), settled_log2_scale=None)


@functools.cache
def forward_overflow() -> Fidelity:
    """Outputs that are not finite in float16, so that no scale has a figure."""
    return made({"block1": -8.0, "block2": -9.0}, forward_overflow=True)


@functools.cache
def without_float16() -> Fidelity:
    """Of a command that did not ask for mixed_float16."""
    return made(
        {"block1": -8.0, "block2": -9.0},
        precisions=("float32", "mixed_bfloat16"),
        window=None,
        why=None,
    )


@functools.cache
def of_many_layers(count: int = 150) -> Fidelity:
    """A deep model; its gradients grow towards the head."""
    sizes = {
        f"encoder/block_{n // 6:02d}/part_{n % 6}": -22.0 + 14 * n / count for n in range(count)
    }
    return made(sizes, entries=100, without_points=[path for path in sizes if path.endswith("_5")])


@functools.cache
def one_layer() -> Fidelity:
    """The smallest model there is, from a script."""
    return made({"dense": -10.0}, dataset=None, command_line=None, model="sequential")


HOSTILE = '</code><script>alert("1")</script>'


@functools.cache
def hostile() -> Fidelity:
    """Names that would be markup, a formula, or move the reader's cursor."""
    return made(
        {HOSTILE: -10.0, "a|b*c_$d$\x1b[2J\n# e": -12.0, "卷积" * 40: -9.0},
        model=HOSTILE,
        limits=(f"{HOSTILE} was left out.",),
    )


ALL = {
    "healthy": healthy,
    "contradiction": contradiction,
    "no_window": no_window,
    "open_window": open_window,
    "forward_overflow": forward_overflow,
    "without_float16": without_float16,
    "of_many_layers": of_many_layers,
    "one_layer": one_layer,
    "hostile": hostile,
}
