"""A document's values as text: rounded, with units; a dash for what was not measured."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from tfamp.run import records

DASH = "–"  # noqa: RUF001
_MEBIBYTE = 2**20

# Formats a figure with the places that suit a second one: the mean, for its interval's ends.
Format = Callable[[float, float], str]


def number(value: Any) -> float | None:
    """A document's number as a float, its `"NaN"` and `"Infinity"` too; None for anything else."""
    value = records.from_json_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def text(value: Any, form: Format, beside: Any = None) -> str:
    """One value: formatted, or a dash, or the word for what is not finite.

    Args:
        value: From the document.
        form: How to round it.
        beside: The figure whose places it takes; its own unless given.
    """
    found = number(value)
    if found is None:
        return DASH
    if not math.isfinite(found):
        return "NaN" if math.isnan(found) else ("infinite" if found > 0 else "-infinite")
    reference = number(beside)
    return form(found, found if reference is None else reference)


def rounded(value: float, beside: float) -> str:
    """Three figures or more: what a reader can use of a time or a rate."""
    return f"{value:,.{_places(beside)}f}"


def _places(value: float) -> int:
    size = abs(value)
    if size >= 100 or size == 0:
        return 0 if size >= 1000 or size == 0 else 1
    return 2 if size >= 1 else min(12, 2 - math.floor(math.log10(size)))


def mebibytes(value: float, beside: float) -> str:
    """Bytes as MiB."""
    return f"{value / _MEBIBYTE:,.{1 if abs(beside) < 1000 * _MEBIBYTE else 0}f}"


def percent(value: float, beside: float) -> str:
    """A share from 0 to 1 as percent, with more places where it is tiny."""
    if 0 < abs(100 * beside) < 0.01:
        return f"{100 * value:.2g}"
    return f"{100 * value:.2f}"


def whole_percent(value: float, beside: float) -> str:
    """A round share from 0 to 1 as percent, without places that say nothing."""
    return f"{100 * value:g}"


def points(value: float, beside: float) -> str:
    """A difference of shares as signed percentage points."""
    return f"{100 * value:+.2f}"


def ratio(value: float, beside: float) -> str:
    """A ratio to two places, with more where it is far below one."""
    return f"{value:.2f}" if abs(beside) >= 0.1 else f"{value:.3g}"


def loss(value: float, beside: float) -> str:
    """A loss to four figures."""
    return f"{value:.4g}"


def count(value: float, beside: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def scale(value: float, beside: float) -> str:
    """A loss scale, as a power of two where it is one."""
    whole = f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
    if value <= 0 or math.frexp(value)[0] != 0.5:
        return whole
    exponent = str(math.frexp(value)[1] - 1)
    return f"{whole} (2{exponent.translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))})"


def estimate(value: Mapping[str, Any] | None, form: Format, unit: str = "") -> tuple[str, str]:
    """A mean with its unit, and its interval without.

    Returns:
        `("102.0 ms", "97.0 to 107.0")`; a dash and nothing where it was not measured, nothing
        for the interval where one seed gives none.
    """
    mean = number(value and value.get("value"))
    shown = text(mean, form)
    if value is None or mean is None or not math.isfinite(mean):
        return shown, ""
    ends = [text(value.get(end), form, mean) for end in ("low", "high")]
    return f"{shown}{unit}", "" if DASH in ends else " to ".join(ends)


def one_line(value: Any) -> str:
    """A text from disk without what could move the reader's cursor or turn the line around."""
    plain = str(value).encode("utf-8", "replace").decode("utf-8")
    return "".join(
        " "
        if letter in "\n\r\t"
        else ("�" if unicodedata.category(letter) in ("Cc", "Cf") else letter)
        for letter in plain
    )


def listed(values: Any) -> str:
    """Several values in a row, a dash for none."""
    return ", ".join(one_line(value) for value in values or []) or DASH
