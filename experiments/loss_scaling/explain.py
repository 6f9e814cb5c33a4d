"""What the number formats hold, and what each number becomes in each. No TensorFlow.

scripts/python.sh -m experiments.loss_scaling --explain 1e-8 2^-24 70000
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence

from tfamp.precision.formats import FORMATS, Format
from tfamp.run.command import DONE, Command, Given
from tfamp.run.errors import InputError

ABOUT = """\
Prints what each number format holds, and what each number X becomes in it: rounded to the nearest,
of two as near to the one whose last bit is 0. X is a decimal such as 1e-8, a power of two such as
2^-24, or inf, and is read as a float64."""

_POWER_OF_TWO = re.compile(r"([-+]?)2(?:\^|\*\*)([-+]?\d+)")


def number(text: str) -> float:
    """The number that was typed.

    Raises:
        InputError: It is none, or none that float64 holds.
    """
    if power := _POWER_OF_TWO.fullmatch(text):
        sign, exponent = -1.0 if power[1] == "-" else 1.0, int(power[2])
        # Beyond these ldexp raises, or makes 0 of it.
        if not -1074 <= exponent <= 1023:
            raise _not_held(text)
        return math.ldexp(sign, exponent)
    try:
        value = float(text)
    except ValueError:
        raise InputError(
            f"{text!r} is no number. X takes a decimal such as 1e-8, a power of two such as 2^-24, "
            "or inf. Give as many as you like: --explain 1e-8 70000"
        ) from None
    is_infinity = text.lower().lstrip("+-").startswith("inf")
    digits = re.split("[eE]", text)[0]
    if (math.isinf(value) and not is_infinity) or (value == 0 and re.search("[1-9]", digits)):
        raise _not_held(text)
    return value


def _not_held(text: str) -> InputError:
    wide = FORMATS["float64"]
    return InputError(
        f"{text!r} is a number that float64 does not hold, and all formats are read from there. X "
        f"takes 0, and sizes from {wide.smallest_subnormal:.3g} to {wide.largest:.6g}."
    )


def table() -> str:
    """The formats, a line each, with what to know of some below."""
    rows = [
        ("", "bits", "largest", "smallest normal", "smallest subnormal", "epsilon", "digits"),
        *(
            (
                one.name,
                f"{one.bits}: 1+{one.exponent_bits}+{one.mantissa_bits}",
                f"{one.largest:.5g}",
                _power(one.smallest_normal),
                _power(one.smallest_subnormal),
                _power(one.epsilon),
                f"{one.decimal_digits:.2f}",
            )
            for one in FORMATS.values()
        ),
    ]
    notes = [
        textwrap.fill(f"{one.name}: {one.about}", 100, subsequent_indent="  ")
        for one in FORMATS.values()
    ]
    about_bits = "bits: of the sign, the exponent and the mantissa"
    return "\n".join([*_aligned(rows), "", about_bits, *notes])


def explained(x: float, typed: str) -> str:
    """What one number becomes in each format."""
    rows = [
        (f"  {one.name}", f"{one.becomes(x).value:.9g}", in_words(one, x))
        for one in FORMATS.values()
    ]
    exponent = math.frexp(x)[1] - 1
    size = f" is {_mantissa(x)} x 2^{exponent}" if x and math.isfinite(x) else ""
    return "\n".join([f"{typed}{size}", *_aligned(rows, left=(0, 2))])


def _mantissa(x: float) -> str:
    return f"{2 * math.frexp(x)[0]:.5g}"


def in_words(one: Format, x: float) -> str:
    """What becomes of a number in a format, in a few words."""
    value, fate, error = one.becomes(x)
    off = "exact" if error == 0 else f"{100 * error:.3g} % off"
    if fate == "nan":
        if math.isnan(x):
            return "NaN, as it was"
        return f"NaN: the largest is {one.largest:.6g}, and there is no infinity"
    if fate == "infinite":
        if math.isinf(x):
            return "infinite, as it was"
        return f"infinite: the largest is {one.largest:.6g}"
    if fate == "zero":
        return f"zero: at most half of the smallest, {_power(one.smallest_subnormal)}"
    if fate == "subnormal":
        return f"subnormal, {off}: below {_power(one.smallest_normal)} bits are lost"
    if fate == "exact":
        return "exact"
    return f"rounded, {off}: the numbers here are {_power(one.ulp(value))} apart"


def _power(value: float) -> str:
    """A power of two, as such and as a decimal."""
    exponent = math.frexp(value)[1] - 1
    return f"2^{exponent} ({value:.3g})" if abs(exponent) > 3 else f"{value:.3g}"


def _aligned(rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        cells = (
            f"{cell:{'<' if place in left else '>'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def main(arguments: Sequence[str]) -> int:
    """Prints it.

    Args:
        arguments: What follows `--explain`: numbers, of which some begin with a dash.

    Returns:
        The exit code.
    """
    flags = [text for text in arguments if re.match(r"-(?!\d|\.|inf|nan|-$)", text)]
    numbers = [text for text in arguments if text not in (*flags, "--")]
    return COMMAND.main([*flags, "--", *numbers])


def _print(given: Given) -> int:
    values = [(number(text), text) for text in given.rest]
    print("\n\n".join([table(), *(explained(*value) for value in values)]))
    return DONE


COMMAND = Command(
    name="experiments.loss_scaling --explain",
    about=ABOUT,
    options={},
    body=_print,
    rest="X",
    hint="It takes numbers: --explain 1e-8 70000",
)
