"""Rows of layers, in the order of the way forward, from one to hundreds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator

from tfamp.reporting.figures import style

# Inches: a row with its name, the least that can still be told from the next, and what rows with a
# name each may take together.
_NAMED, _LEAST, _HIGHEST = 0.215, 0.085, 9.0
# Of a layer's name beside its row.
_LONGEST_NAME = 24


def inches(count: int) -> float:
    """The height of so many rows."""
    return max(3 * _NAMED, count * _row(count))


def finish(axes: Axes, paths: Sequence[str]) -> None:
    """Names the rows at 0, 1, ... from the top; every few of them where they are many."""
    apart = math.ceil(_NAMED / _row(len(paths)) - 1e-9)
    places = range(0, len(paths), apart)
    axes.yaxis.set_major_locator(FixedLocator(list(places)))
    names = [style.shown(paths[place], _LONGEST_NAME) for place in places]
    axes.yaxis.set_major_formatter(FixedFormatter(names))
    axes.set_ylim(len(paths) - 0.5, -0.5)


def told(count: int, left_out: int, why: str) -> str:
    """What a caption says of rows without a name, and of layers without a row."""
    apart = math.ceil(_NAMED / _row(count) - 1e-9)
    parts = []
    if apart > 1:
        parts.append(f"One row in {apart} is named; the table has all {count} layers.")
    if left_out:
        parts.append(f"Left out, as {why}: {left_out} more.")
    return " ".join(parts)


def _row(count: int) -> float:
    return _NAMED if count * _NAMED <= _HIGHEST else max(_LEAST, _HIGHEST / count)
