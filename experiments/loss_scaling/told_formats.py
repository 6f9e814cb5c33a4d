"""What experiments/loss_scaling.md tells of formats and powers of two: made while it is checked."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from experiments.loss_scaling import explain
from experiments.tables import share, table
from tfamp.precision.formats import FORMATS
from tfamp.reporting.figures.style import power_of_two

# Gradients of the table of scales, and the scales.
GRADIENTS = (1e-2, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10)
SCALES = (1.0, 2.0**8, 2.0**15, 2.0**24)
_FLOAT16 = FORMATS["float16"]


def formats_table() -> str:
    """The formats, a row each."""
    rows = [
        (
            f"`{one.name}`",
            f"{one.bits} = 1 + {one.exponent_bits} + {one.mantissa_bits}",
            f"{one.largest:.5g}",
            power_of_two(one.smallest_normal),
            power_of_two(one.smallest_subnormal),
            power_of_two(one.epsilon),
            f"{one.decimal_digits:.1f}",
        )
        for one in FORMATS.values()
    ]
    head = ("format", "bits = sign + exponent + mantissa", "largest", "smallest normal",
            "smallest", "step at 1", "decimal digits")  # fmt: skip
    return table(head, rows)


def explained(*numbers: str) -> str:
    """What the console shows of some numbers, less the table."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        explain.main(numbers)
    _, *blocks = printed.getvalue().rstrip().split("\n\n")
    return "\n```\n" + "\n\n".join(blocks[1:]) + "\n```\n"


def through_float16(gradient: float, scale: float) -> str:
    """What is left of a gradient that goes through float16 multiplied by a scale."""
    kept = float(_FLOAT16.rounded(gradient * scale)) / scale
    if not math.isfinite(kept):
        return "infinite"
    off = abs(kept - gradient) / gradient
    return f"{kept:.4g} ({100 * off:.2g} % off)" if kept and off else f"{kept:.4g}"


def scales_table() -> str:
    """Gradients through float16 under scales."""
    head = ("gradient", "no scale", *(f"scale {power_of_two(scale)}" for scale in SCALES[1:]))
    rows = [
        (f"{gradient:.4g}", *(through_float16(gradient, scale) for scale in SCALES))
        for gradient in GRADIENTS
    ]
    return table(head, rows)


def changed(scale: float) -> float:
    """The share of float32 numbers that are others after times and divided by a scale."""
    generator = np.random.default_rng(0)
    exponents = generator.uniform(-30.0, 0.0, 1_000_000)
    gradients = (2.0**exponents).astype(np.float32)
    scaled = gradients * np.float32(scale)
    return float(np.mean(scaled / np.float32(scale) != gradients))


def values() -> dict[str, Callable[[], str]]:
    """Each name's text."""
    float16, bfloat16 = _FLOAT16, FORMATS["bfloat16"]
    return {
        "formats.table": formats_table,
        "formats.explained": partial(explained, "1e-8", "70000"),
        "float16.exponent_bits": lambda: str(float16.exponent_bits),
        "float16.mantissa_bits": lambda: str(float16.mantissa_bits),
        "bfloat16.exponent_bits": lambda: str(bfloat16.exponent_bits),
        "bfloat16.mantissa_bits": lambda: str(bfloat16.mantissa_bits),
        "float16.largest": lambda: f"{float16.largest:g}",
        "float16.smallest_normal": lambda: power_of_two(float16.smallest_normal),
        "float16.smallest": lambda: power_of_two(float16.smallest_subnormal),
        "float16.smallest_decimal": lambda: f"{float16.smallest_subnormal:.2g}",
        "float16.half_of_smallest": lambda: power_of_two(float16.smallest_subnormal / 2),
        "float16.off": lambda: share(float16.epsilon / 2),
        "bfloat16.off": lambda: share(bfloat16.epsilon / 2),
        "scales.table": scales_table,
        "scales.changed_by_power": lambda: share(changed(2.0**15)),
        "scales.changed_by_1000": lambda: share(changed(1000.0)),
        "scales.power": lambda: power_of_two(2.0**15),
    }
