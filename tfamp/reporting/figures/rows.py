"""A picture of rows: what is compared, each with its name above it and what is told of it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tfamp.reporting.figures import style

# Of a row's name above it.
_LONGEST_NAME = 36


def write_name(axes: Axes, row: int, name: str, told: str) -> None:
    """Writes a name above its row, where it needs no room beside the axis.

    Args:
        axes: The panel.
        row: The place of the row, 0 for the highest, -1 below it.
        name: What the row shows.
        told: Its figure in short, at the other end.
    """
    frame = axes.get_yaxis_transform()
    shown = style.shown(name, _LONGEST_NAME)
    axes.text(0.01, row + 0.29, shown, transform=frame, fontsize=11.5, va="bottom", weight="bold")
    axes.text(0.99, row + 0.29, told, transform=frame, fontsize=11.5, va="bottom", ha="right")


def finish(axes: Axes, count: int, label: str, is_logarithmic: bool = False) -> None:
    """Gives the panel of `count` rows its axis: plain numbers below, nothing at the side."""
    if is_logarithmic:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.plain_number(x)))
    axes.set_xlabel(label)
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-count + 1 - 0.35, 0.7)
