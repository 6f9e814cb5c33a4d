"""The types of values in a run's JSON files: what each takes, and how it is asked for."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        holds: Whether a value is of it.
        one: How an error asks for one.
        many: How it asks for a list of them.
    """

    holds: Callable[[Any], bool]
    one: str
    many: str


def is_number(value: Any) -> bool:
    """A number, NaN and infinities among them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """A whole number of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_whole(value: Any) -> bool:
    """A whole number, below 0 too."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_above_zero(value: Any) -> bool:
    return is_number(value) and math.isfinite(value) and value > 0


_KINDS: dict[Any, Kind] = {
    str: Kind(lambda value: isinstance(value, str), "a text", "texts"),
    bool: Kind(lambda value: isinstance(value, bool), "true or false", "true or false"),
    int: Kind(is_count, "a whole number", "whole numbers"),
    float: Kind(is_number, "a number", "numbers"),
}
_ABOVE_ZERO = Kind(_is_above_zero, "a number above 0", "numbers above 0")
# A time or a rate, and a size: what was measured is finite and more than nothing.
Measured = Annotated[float, _ABOVE_ZERO]
Size = Annotated[int, _ABOVE_ZERO]
# Of a power of two.
_EXPONENT = Kind(is_whole, "a whole number, or one below 0", "whole numbers, or such below 0")
Exponent = Annotated[int, _EXPONENT]


def base_of(hint: Any) -> Any:
    """A declared type without its kind."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def kind_of(hint: Any) -> Kind:
    """The kind of a declared type that holds one value."""
    if typing.get_origin(hint) is Literal:
        known = typing.get_args(hint)
        names = f"{', '.join(known[:-1])} or {known[-1]}"
        return Kind(lambda value: value in known, names, names)
    return typing.get_args(hint)[1] if typing.get_origin(hint) is Annotated else _KINDS[hint]


def in_words(hint: Any) -> str:
    """What a value of a declared type is, for an error and for the table."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return f"{in_words(arguments[0])}, or null"
    if origin is tuple:
        is_record = dataclasses.is_dataclass(arguments[0])
        return f"a list of {'objects' if is_record else kind_of(arguments[0]).many}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "an object"
    return kind_of(hint).one
