"""The numbers that a setting may be, told before anything slow begins."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

# What becomes a float32 on the device: of the normal ones, as smaller ones may be taken for 0.
SMALLEST_FLOAT32 = 2.0**-126
LARGEST_FLOAT32 = (2.0 - 2.0**-23) * 2.0**127

# Two counts may be multiplied and still be an int64.
LARGEST_COUNT = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds; each bound is one of its pair, or is not there.

    Attributes:
        least: The smallest that is allowed.
        above: What all are larger than.
        most: The largest that is allowed.
        below: What all are smaller than.
        is_whole: Whether only whole numbers are allowed, of which `LARGEST_COUNT` is the largest
            without another; other numbers must be held by a float32.
        or_none: Whether None, for no limit, is allowed too.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    is_whole: bool = False
    or_none: bool = False

    def __str__(self) -> str:
        """The range in words, as in "it must be ..."."""
        if self.least is not None and self.most is not None:
            words = f"from {_shown(self.least)} to {_shown(self.most)}"
        else:
            bounds = (
                (self.least, "{} or more"),
                (self.above, "above {}"),
                (self.most, "{} or less"),
                (self.below, "below {}"),
            )
            parts = [text.format(_shown(bound)) for bound, text in bounds if bound is not None]
            words = " and ".join(parts)
        return f"{words}, or none" if self.or_none else words

    def why_not(self, value: Any) -> str | None:
        """Says why a value is not allowed, as in "--epochs=0: it must be ..."; None if it is."""
        if value is None and self.or_none:
            return None
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or (self.is_whole and value % 1):
            return f"it must be a {'whole ' if self.is_whole else ''}number, {self}."
        if not self._holds(value):
            return f"it must be {self}."
        if self.is_whole:
            too_many = f"it must be {LARGEST_COUNT} or less."
            return too_many if self.most is None and value > LARGEST_COUNT else None
        if value == 0 or SMALLEST_FLOAT32 <= abs(value) <= LARGEST_FLOAT32:
            return None
        smallest, largest = _shown(SMALLEST_FLOAT32), _shown(LARGEST_FLOAT32)
        return (
            f"float32 does not hold it. It must be {self}, and other than 0 from {smallest} to "
            f"{largest}."
        )

    def _holds(self, value: float) -> bool:
        # NaN is nowhere: each comparison with it is false.
        return (
            not math.isnan(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


def whole(least: int, most: int | None = None, or_none: bool = False) -> Range:
    """A count."""
    return Range(least=least, most=most, is_whole=True, or_none=or_none)


def written(value: float) -> str:
    """A number as text that is the same number again, as short as can be."""
    short = f"{value:.9g}"
    return short if float(short) == value else repr(value)


def _shown(bound: float) -> str:
    if isinstance(bound, int):
        return str(bound)
    mantissa, exponent = math.frexp(bound)
    # The bounds of float32 say more as powers of two.
    is_power = mantissa == 0.5 and abs(exponent) > 20
    return f"2^{exponent - 1} ({bound:.3g})" if is_power else f"{bound:.3g}"
