"""An axis of powers of two, by their exponents: loss scales and sizes of numbers."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator

from tfamp.reporting.figures import style


def below(axes: Axes, low: float, high: float, label: str) -> None:
    """Gives the panel an axis from 2^low to 2^high below, with at most nine powers named."""
    axes.set_xlim(low, high)
    # Steps that divide the exponents that float16's limits and scales are known by.
    apart = next((n for n in (1, 2, 4, 8, 16, 32) if (high - low) / n <= 9), 64)
    axes.xaxis.set_major_locator(MultipleLocator(apart))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _power(x)))
    axes.set_xlabel(label)


def _power(exponent: float) -> str:
    # A float holds no power beyond these; nothing is there either.
    return style.power_of_two(math.ldexp(1.0, round(exponent))) if abs(exponent) < 1000 else ""
