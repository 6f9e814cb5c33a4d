"""A document's values as text: rounded, with units; a dash for what was not measured."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from tfamp.run import records

DASH = "–"  # noqa: RUF001
_MEBIBYTE = 2**20

Format = Callable[[float], str]


def number(value: Any) -> float | None:
    """A document's number as a float, its `"NaN"` and `"Infinity"` too; None for anything else."""
    value = records.from_json_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def text(value: Any, form: Format) -> str:
    """One value: formatted, or a dash, or the word for what is not finite."""
    found = number(value)
    if found is None:
        return DASH
    if not math.isfinite(found):
        return "NaN" if math.isnan(found) else ("infinite" if found > 0 else "-infinite")
    return form(found)


def rounded(value: float) -> str:
    """Three figures or more: what a reader can use of a time or a rate."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def mebibytes(value: float) -> str:
    """Bytes as MiB."""
    size = value / _MEBIBYTE
    return f"{size:,.0f}" if size >= 100 else f"{size:.1f}"


def percent(value: float) -> str:
    """A share from 0 to 1 as percent, with more places where it is tiny."""
    size = abs(100 * value)
    if 0 < size < 0.01:
        return f"{100 * value:.2g}"
    return f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of shares as signed percentage points."""
    return f"{100 * value:+.2f}"


def ratio(value: float) -> str:
    """A ratio to two places, with more figures where it is far below one."""
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def loss(value: float) -> str:
    """A loss to four figures."""
    return f"{value:.4g}"


def count(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def scale(value: float) -> str:
    """A loss scale, as a power of two where it is one."""
    whole = f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
    if value <= 0 or math.frexp(value)[0] != 0.5:
        return whole
    exponent = str(math.frexp(value)[1] - 1)
    return f"{whole} (2{exponent.translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))})"


def interval(estimate: Mapping[str, Any] | None, form: Format) -> str:
    """`low to high`; empty where there is no interval."""
    if not estimate or number(estimate.get("low")) is None or number(estimate.get("high")) is None:
        return ""
    return f"{text(estimate['low'], form)} to {text(estimate['high'], form)}"


def estimate(value: Mapping[str, Any] | None, form: Format, unit: str = "") -> tuple[str, str]:
    """A mean with its unit, and its interval without.

    Returns:
        `("102.0 ms", "97.0 to 107.0")`; a dash and nothing where it was not measured.
    """
    mean = text(value and value.get("value"), form)
    if mean in (DASH, "NaN"):
        return mean, ""
    return f"{mean}{unit}", interval(value, form)


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
