"""How every page's pictures look: lines that survive grey print and colour blindness, and words."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure

GREY = "#555555"


@dataclasses.dataclass(frozen=True)
class Style:
    """How one of the things that a page compares is drawn, wherever it appears.

    Attributes:
        colour: As `#rrggbb`.
        dashes: On and off lengths in line widths, empty for a solid line.
        marker: matplotlib's letter.
    """

    colour: str
    dashes: tuple[float, ...]
    marker: str

    @property
    def line(self) -> Any:
        """The line style as matplotlib takes it."""
        return (0, self.dashes) if self.dashes else "solid"


# The lightness in CIELAB goes from 4 to 62 in steps of 8, so the eight differ in grey and for
# any kind of colour blindness, and the lightest has a contrast of 3 to white. The order keeps the
# first few far apart.
STYLES = (
    Style("#0e0e0e", (), "o"),
    Style("#f96a0b", (5, 1.5), "s"),
    Style("#032b87", (1.2, 1.2), "^"),
    Style("#007c5d", (6, 1.5, 1.2, 1.5), "D"),
    Style("#910427", (9, 2), "v"),
    Style("#0684df", (3, 1.5, 1.2, 1.5, 1.2, 1.5), "P"),
    Style("#3c0846", (2.5, 2.5), "X"),
    Style("#8d4607", (9, 1.5, 3, 1.5), "<"),
)

_SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so pictures look alike everywhere
    "font.size": 12.0,
    "axes.titlesize": 12.0,
    "axes.labelsize": 12.0,
    "legend.fontsize": 11.5,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    # Labels and devices come from disk; a dollar sign in one is no formula.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "figure.constrained_layout.use": True,
}


def style_of(index: int) -> Style:
    """The style of what is compared by its place; after the eighth they come again."""
    return STYLES[index % len(STYLES)]


@contextmanager
def house_style() -> Iterator[None]:
    """Draws with these settings, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def shown(text: str, most: int = 44) -> str:
    """A text from disk as a picture can show it: one line, known letters, not too long."""
    plain = "".join(
        "?" if unicodedata.category(letter) in ("Cc", "Cf", "Cs") else letter
        for letter in text.encode("latin-1", "replace").decode("latin-1")
    )
    if len(plain) > most:
        half = (most - 3) // 2
        plain = f"{plain[: most - 3 - half]}...{plain[-half:]}"
    # matplotlib leaves labels that begin with an underscore out of legends.
    return f" {plain}" if plain.startswith("_") else plain


def legend(drawn: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Puts a legend above the panels, in two columns where the labels are short."""
    columns = 2 if len(labels) > 1 and max(map(len, labels)) <= 24 else 1
    drawn.legend(
        list(handles),
        list(labels),
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
        borderaxespad=0.2,
        labelspacing=0.35,
    )


def legend_inches(labels: Sequence[str]) -> float:
    """The height that `legend` takes."""
    columns = 2 if len(labels) > 1 and max(map(len, labels)) <= 24 else 1
    return 0.25 * math.ceil(len(labels) / columns) + 0.1


def plain_number(value: float) -> str:
    """A tick's number without an offset or an exponent where that is short."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.10g}"
    return f"{value:.3g}"


def power_of_two(value: float) -> str:
    """`2` with its exponent raised, for the axis of a loss scale."""
    exponent = math.log2(value)
    if exponent != round(exponent):
        return f"{value:.3g}"
    return "2" + str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
