"""How the pages of the experiments write numbers and tables."""

from __future__ import annotations

from collections.abc import Sequence

from tfamp.reporting.figures.style import power_of_two


def two_to_the(exponent: float) -> str:
    """2 with an exponent: 2⁻²⁴."""
    return power_of_two(2.0**exponent)


def share(value: float) -> str:
    """A share of 0 to 1 with two digits that say something: 31.3 %, 0.049 %, 1 in 110,000,000."""
    percent = 100 * value
    if percent == 0 or percent >= 99.95:
        return f"{percent:.3g} %"
    if percent < 0.001:
        return f"1 in {float(f'{1 / value:.2g}'):,.0f}"
    return f"{percent:.1f} %" if percent >= 1 else f"{percent:.2g} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is of names, the others of numbers."""
    dashes = ("---", *("---:" for _ in head[1:]))
    return "\n" + "".join(f"| {' | '.join(row)} |\n" for row in (head, dashes, *rows))
