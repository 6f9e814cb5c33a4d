"""Sums over a gradient's entries, pooled over variables, calls and batches, and what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from tfamp.diagnosis.float_bits import BIAS
from tfamp.diagnosis.sums import FORMATS, SUMS, WEIGHT_SUMS
from tfamp.run.fidelity import Histogram, Point

# Half the distance of two neighbours at 1, by what a pass computed in.
_ROUNDING = {
    "float32": 2.0**-24,
    "mixed_float16": 2.0**-11,
    "mixed_bfloat16": 2.0**-8,
}
# A gradient this much smaller than the terms that it is the sum of is below float32's rounding.
_CANCELLED = 2.0**-25
# What share of the terms' size is the floor of such a gradient.
_FLOOR = 2.0**-4


class Tally(NamedTuple):
    """Sums over the entries of a gradient `y`, unscaled, beside the reference's `r`.

    Attributes:
        squared_error: Of (y - r)^2.
        product: Of y r.
        squares: Of y^2.
        reference_squares: Of r^2.
        entries: How many there are.
        underflows: Those that are zero here and not in the reference.
        non_finite: Those that are NaN or infinite.
        subnormal: Those that are subnormal in what holds them.
    """

    squared_error: float
    product: float
    squares: float
    reference_squares: float
    entries: float
    underflows: float
    non_finite: float
    subnormal: float

    @property
    def is_finite(self) -> bool:
        """Whether every entry is."""
        return self.non_finite == 0

    @property
    def error(self) -> float:
        """L2 norm of the difference."""
        return math.sqrt(self.squared_error)

    @property
    def reference(self) -> float:
        """L2 norm of the reference."""
        return math.sqrt(self.reference_squares)


def pooled(tallies: Iterable[Tally]) -> Tally | None:
    """All entries together; None where there are none."""
    columns = list(zip(*tallies, strict=True))
    return Tally(*map(math.fsum, columns)) if columns else None


def of_weight(sums: np.ndarray, computes_in: str) -> Tally:
    """The tally of a weight's gradient.

    Keras hands the gradient of a float16 layer's float32 weight back as float32. Where every
    finite entry is a number of the layer's format, that is what held it.

    Args:
        sums: A vector of WEIGHT_SUMS.
        computes_in: What the layer computes in.
    """
    by_name = dict(zip(WEIGHT_SUMS, map(float, sums), strict=True))
    subnormal = by_name["subnormal"]
    if computes_in in FORMATS and by_name[f"unlike_{computes_in}"] == 0:
        subnormal = by_name[f"subnormal_{computes_in}"]
    return Tally(**{name: by_name[name] for name in SUMS} | {"subnormal": subnormal})


def of_call(sums: np.ndarray, exponent: int, reference_squares: float) -> Tally:
    """The tally of a gradient with respect to an output of a call.

    Args:
        sums: A vector of SUMS, of values times 2^-exponent.
        exponent: See `Reference`.
        reference_squares: Likewise.
    """
    # Where an entry is not finite the sums are not either, and mean nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.ldexp(np.append(sums[:3], reference_squares), 2 * exponent)
    return Tally(*map(float, squares), *map(float, sums[4:]))


def terms_size(tallies: Mapping[str, Iterable[Tally]]) -> float:
    """How large the terms are whose sum a gradient is, from what rounding left of it.

    Args:
        tallies: By precision; of several scales the largest error counts, as what underflows to
            zero shows no rounding.
    """
    sizes = [0.0]
    for precision, found in tallies.items():
        errors = [each.error for each in found if each.is_finite]
        if errors:
            sizes.append(max(errors) / _ROUNDING[precision])
    return max(sizes)


def floor_of(reference: float, terms: float) -> float:
    """What an error is relative to at least; above 0 where a gradient is zero up to rounding.

    The bias of a convolution before BatchNormalization has a gradient that is truly zero: float64
    says 1e-17, float16 1e-4. It is told by its terms, which rounding shows, and not by the
    gradient of other layers: one that vanishes on its way to the first layers is no zero, and just
    what underflows.

    Args:
        reference: L2 norm of the gradient in the reference.
        terms: See `terms_size`.
    """
    return _FLOOR * terms if reference < _CANCELLED * terms else 0.0


def relative_error(tally: Tally, floor: float) -> float | None:
    """The L2 norm of the difference over the reference's, or over the floor where that is larger.

    None where an entry is not finite.
    """
    if not tally.is_finite:
        return None
    if tally.error == 0:
        return 0.0
    norm = max(tally.reference, floor)
    return tally.error / norm if norm else math.inf


def point(precision: str, log2_scale: int | None, tally: Tally, floor: float) -> Point:
    """What a precision, at a scale, left of a gradient."""
    return Point(
        precision=precision,
        log2_scale=log2_scale,
        relative_error=relative_error(tally, floor),
        cosine=_cosine(tally),
        underflow_fraction=tally.underflows / tally.entries,
        subnormal_fraction=tally.subnormal / tally.entries,
        non_finite_fraction=tally.non_finite / tally.entries,
    )


def _cosine(tally: Tally) -> float | None:
    norms = tally.reference * math.sqrt(tally.squares) if tally.is_finite else 0.0
    return max(-1.0, min(1.0, tally.product / norms)) if norms else None


def histogram(counts: np.ndarray) -> Histogram:
    """The histogram of exponents.

    Args:
        counts: int64 [2048], entries by the biased exponent of float64, of which 0 is zero's.
    """
    zeros, rest = int(counts[0]), counts[1:2047]
    held = np.flatnonzero(rest)
    if not held.size:
        return Histogram(first=0, counts=(), zeros=zeros)
    first, last = int(held[0]), int(held[-1])
    return Histogram(
        first=first + 1 - BIAS,
        counts=tuple(int(count) for count in rest[first : last + 1]),
        zeros=zeros,
    )


def log2_size(entries: float, squares: float) -> float | None:
    """log2 of the root mean square; None where there is nothing but zeros, or no entry."""
    if not entries or not squares or not math.isfinite(squares):
        return None
    return 0.5 * math.log2(squares / entries)
