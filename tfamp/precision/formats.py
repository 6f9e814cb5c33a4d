"""What the number formats of training can hold: range, precision, and what a number becomes.

No TensorFlow. Limits come from NumPy's and ml_dtypes' `finfo`. Rounding is done here, exactly and
once: ml_dtypes goes from float64 through float32 and rounds twice, so that
1 + 2^-8 + 2^-40 becomes 1 in its bfloat16, and 1 + 2^-7 here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np

from tfamp.run.errors import unknown_name

Fate = Literal["exact", "rounded", "subnormal", "zero", "infinite", "nan"]


class Became(NamedTuple):
    """What a number became.

    Attributes:
        value: The number that the format holds in its place.
        fate: `exact` or `rounded` to a normal number; `subnormal` where the format has fewer bits
            left, exact or not; `zero`, `infinite` or `nan` where the number is lost.
        relative_error: |value - x| / |x|: 0 where exact, 1 where it became zero, infinite where it
            overflowed; NaN where either is NaN.
    """

    value: float
    fate: Fate
    relative_error: float


@dataclasses.dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: Its name.
        about: What to know of it.
        exponent_bits: Bits of the exponent.
        mantissa_bits: Bits of the mantissa, less the leading 1 that is not stored.
        min_exponent: log2 of the smallest normal number.
        largest: The largest finite number.
        has_infinity: Whether it holds infinities; without, what is too large becomes NaN.
    """

    name: str
    about: str
    exponent_bits: int
    mantissa_bits: int
    min_exponent: int
    largest: float
    has_infinity: bool

    @property
    def bits(self) -> int:
        """All bits, with the sign's."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with all its mantissa bits."""
        return math.ldexp(1.0, self.min_exponent)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive number; half of it becomes 0."""
        return math.ldexp(1.0, self.min_exponent - self.mantissa_bits)

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next larger number."""
        return math.ldexp(1.0, -self.mantissa_bits)

    @property
    def decimal_digits(self) -> float:
        """Significant decimal digits: log10(2) of each bit of the mantissa, the leading 1 too."""
        return (1 + self.mantissa_bits) * math.log10(2.0)

    def rounded(self, values: Any) -> np.ndarray:
        """What numbers become: to the nearest, of two as near to the one whose last bit is 0.

        Args:
            values: Numbers that float64 holds, of any shape.

        Returns:
            float64 array of the same shape, every entry a number of the format. What rounds beyond
            `largest` is infinite, or NaN where the format has no infinity; what is at most half of
            `smallest_subnormal` is 0, with its sign.
        """
        exact = np.asarray(values, np.float64)
        quantum = self._exponent(exact) - self.mantissa_bits
        # Shifts by powers of two lose nothing; rint is the one rounding.
        # Signalling NaNs are "invalid".
        with np.errstate(over="ignore", invalid="ignore"):
            near = np.ldexp(np.rint(np.ldexp(np.abs(exact), -quantum)), quantum)
        too_large = math.inf if self.has_infinity else math.nan
        return np.copysign(np.where(near > self.largest, too_large, near), exact)

    def ulp(self, x: float) -> float:
        """The distance between two neighbours of the format where x lies; NaN beyond `largest`."""
        if not abs(x) <= self.largest:
            return math.nan
        return math.ldexp(1.0, int(self._exponent(np.float64(x))) - self.mantissa_bits)

    def becomes(self, x: float) -> Became:
        """What one number becomes."""
        value = float(self.rounded([x])[0])
        if math.isnan(value):
            return Became(value, "nan", math.nan)
        if math.isinf(value):
            return Became(value, "infinite", math.nan if math.isinf(x) else math.inf)
        if value == x:
            is_normal = x == 0 or abs(x) >= self.smallest_normal
            return Became(value, "exact" if is_normal else "subnormal", 0.0)
        error = abs(value - x) / abs(x)
        if value == 0:
            return Became(value, "zero", error)
        return Became(
            value, "rounded" if abs(value) >= self.smallest_normal else "subnormal", error
        )

    def _exponent(self, values: np.ndarray) -> np.ndarray:
        """floor(log2 |x|), but no less than the smallest normal number's."""
        _, exponent = np.frexp(values)
        lowest = self.min_exponent
        return np.where(values == 0, lowest, np.maximum(exponent - 1, lowest))


def _of_dtype(name: str, dtype: Any, about: str) -> Format:
    limits = ml_dtypes.finfo(dtype)
    with np.errstate(over="ignore"):
        infinity = np.array([math.inf]).astype(dtype).astype(np.float64)
    return Format(
        name=name,
        about=about,
        exponent_bits=int(limits.nexp),
        mantissa_bits=int(limits.nmant),
        min_exponent=int(limits.minexp),
        largest=float(limits.max),
        has_infinity=bool(np.isinf(infinity[0])),
    )


def _tf32() -> Format:
    """TF32, which no dtype stands for: float32's exponent and float16's mantissa.

    Source: NVIDIA A100 Tensor Core GPU architecture, whitepaper of 2020, "TensorFloat-32".
    """
    wide, short = ml_dtypes.finfo(np.float32), ml_dtypes.finfo(np.float16)
    return Format(
        name="tf32",
        about=(
            "what NVIDIA's Tensor Cores read of float32 inputs; it is stored as float32. Rounded "
            "here to the nearest, ties to even. GPUs differ in ties: `cvt.rna.tf32.f32` takes them "
            "away from zero, and a kernel that hands over float32 as it is has its last 13 bits "
            "cut off."
        ),
        exponent_bits=int(wide.nexp),
        mantissa_bits=int(short.nmant),
        min_exponent=int(wide.minexp),
        # All mantissa bits set below 2^maxexp.
        largest=math.ldexp(2.0 - float(short.eps), int(wide.maxexp) - 1),
        has_infinity=True,
    )


FORMATS = {
    one.name: one
    for one in (
        _of_dtype("float16", np.float16, "three more bits than bfloat16, and a small range."),
        _of_dtype("bfloat16", ml_dtypes.bfloat16, "the upper half of a float32, and its range."),
        _tf32(),
        _of_dtype("float32", np.float32, "what weights are kept and updated in."),
        _of_dtype("float64", np.float64, "the reference that others are held against."),
        _of_dtype(
            "float8_e4m3",
            ml_dtypes.float8_e4m3fn,
            "for weights and activations; the variant e4m3fn of GPUs, TensorFlow and the Open "
            "Compute Project, without infinity: what is too large becomes NaN. ml_dtypes has "
            "another one of the bare name, with infinity, whose largest number is 240.",
        ),
        _of_dtype(
            "float8_e5m2",
            ml_dtypes.float8_e5m2,
            "for gradients. A GPU's conversion may stop at the largest number, where this one goes "
            "to infinity.",
        ),
    )
}


def named(name: str) -> Format:
    """A format by its name.

    Raises:
        InputError: There is none of the name.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS, "format")
    return FORMATS[name]
