"""The JSON files of a run as frozen dataclasses: each key is declared once, for writer and reader.

A key without a default is one that a reader relies on: its value has the declared type, and where
that takes None an older file may lack it. A key with a default is one that a reader can do without:
what is absent, or of another form, reads as the default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tfamp.run import records
from tfamp.run.json_types import base_of, in_words, kind_of

# In config.json and result.json: a run of tfamp wrote the file.
MARK = {"written_by": "tfamp"}


def is_marked(value: Mapping[str, Any]) -> bool:
    """Whether an object bears the mark."""
    return MARK.items() <= value.items()


class RecordError(ValueError):
    """A file is not what a run writes; the message names the file and the key, in a sentence."""


class OtherVersionError(RecordError):
    """A file of a schema that this tfamp does not read.

    Attributes:
        version: What it has for `schema_version`.
    """

    def __init__(self, file: str, version: Any) -> None:
        super().__init__(
            f"{file} has schema version {version!r}; this tfamp reads {records.SCHEMA_VERSION}."
        )
        self.version = version


_REQUIRED = dataclasses.MISSING


def key(meaning: str, absent: Any = _REQUIRED, left_out: bool = False) -> Any:
    """Declares a key.

    Args:
        meaning: What it says and what a reader may rely on, for the table in CONTRIBUTING.md.
        absent: What its absence means; without it a reader relies on the key.
        left_out: Whether a writer leaves it out where there is nothing but `absent` to say.
    """
    metadata = {"meaning": meaning, "left_out": left_out}
    if isinstance(absent, dict):
        return dataclasses.field(default_factory=lambda: dict(absent), metadata=metadata)
    return dataclasses.field(default=absent, metadata=metadata)


def meaning(cls: Any, name: str) -> str:
    """What a key of a record says, as it is declared."""
    (field,) = (field for field in dataclasses.fields(cls) if field.name == name)
    return str(field.metadata["meaning"])


def beside() -> Any:
    """Declares a record whose keys stand among those of the one around it, or are all absent."""
    return dataclasses.field(default=None, metadata={"beside": True})


def to_json(record: Any) -> dict[str, Any]:
    """A record as JSON values; a figure that is not finite is a string, as in the rows."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.metadata.get("beside"):
            found |= {} if value is None else to_json(value)
        elif not (field.metadata.get("left_out") and value == field.default):
            found[field.name] = _as_json(value)
    return found


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {name: _as_json(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(entry) for entry in value]
    return records.to_json_number(value) if isinstance(value, float) else value


_File = TypeVar("_File", bound="JsonFile")


class JsonFile:
    """What config.json and result.json have in common: the mark, the version, the reading."""

    file: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """All of the file."""
        return MARK | {"schema_version": records.SCHEMA_VERSION} | to_json(self)

    @classmethod
    def from_json(cls: type[_File], value: Mapping[str, Any]) -> _File:
        """Reads the file's object. Keys that this schema does not have are passed over.

        Raises:
            OtherVersionError: It is of another schema.
            RecordError: It is of none, or a key that a reader relies on is absent or of another
                kind.
        """
        version = value.get("schema_version")
        if version is None:
            raise RecordError(f"{cls.file} has no schema version: tfamp did not write it.")
        if version != records.SCHEMA_VERSION:
            raise OtherVersionError(cls.file, version)
        return parsed(cls, value, cls.file)

    @classmethod
    def read(cls: type[_File], path: Path) -> _File:
        """Reads the file at a path.

        Raises:
            RecordError: As for `from_json`; or it is not there, or holds no object.
        """
        try:
            value = read_object(path)
        except FileNotFoundError:
            raise RecordError(f"There is no {path.name}.") from None
        except OSError as error:
            raise RecordError(f"{path.name} cannot be read: {error.strerror or error}.") from error
        except ValueError as error:
            raise RecordError(f"{path.name} cannot be read: {error}.") from error
        if value is None:
            raise RecordError(f"{path.name} holds no JSON object.")
        return cls.from_json(value)


def read_object(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds; None where it holds something else.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON.
    """
    value = json.loads(path.read_bytes())
    return value if isinstance(value, dict) else None


class _Misfit(Exception):
    def __init__(self, value: Any, wanted: str, place: str = "") -> None:
        super().__init__()
        self.value, self.wanted, self.place = value, wanted, place

    def within(self, name: str) -> _Misfit:
        return _Misfit(self.value, self.wanted, f"{name}.{self.place}" if self.place else name)


_Record = TypeVar("_Record")


def parsed(cls: type[_Record], value: Mapping[str, Any], file: str) -> _Record:
    """A record from the object that a file holds.

    Raises:
        RecordError: A key that a reader relies on is absent or of another kind.
    """
    return fitting(cls, value, file)


def fitting(hint: Any, value: Any, file: str, place: str = "") -> Any:
    """A JSON value as the declared type has it: records, tuples and floats of what is there.

    Args:
        hint: The type.
        value: The value.
        file: The file's name, for a message.
        place: The value's key there.

    Raises:
        RecordError: It is of another kind.
    """
    try:
        return _fitting(hint, value)
    except _Misfit as misfit:
        misfit = misfit.within(place) if place else misfit
        raise RecordError(
            f"{file} has {misfit.place}={misfit.value!r} where {misfit.wanted} belongs."
        ) from None


def _fitting(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _fitting(arguments[0], value)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value)
    if origin is tuple:
        return _tuple(hint, arguments[0], value)
    if origin is dict:
        if not isinstance(value, dict):
            raise _Misfit(value, "an object")
        return {name: _within(name, arguments[1], entry) for name, entry in value.items()}
    if hint is Any:
        return value
    value = records.from_json_number(value) if base_of(hint) is float else value
    kind = kind_of(hint)
    if not kind.holds(value):
        raise _Misfit(value, kind.one)
    return value


def _record(cls: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _Misfit(value, "an object")
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        hint = _hints(cls)[field.name]
        if field.metadata.get("beside"):
            inner = typing.get_args(hint)[0]
            if any(each.name in value for each in dataclasses.fields(inner)):
                found[field.name] = _record(inner, value)
            continue
        is_relied_on = (field.default, field.default_factory) == (_REQUIRED, _REQUIRED)
        if is_relied_on:
            found[field.name] = _within(field.name, hint, value.get(field.name))
        elif field.name in value:
            with contextlib.suppress(_Misfit):
                found[field.name] = _fitting(hint, value[field.name])
    return cls(**found)


def _within(name: str, hint: Any, value: Any) -> Any:
    try:
        return _fitting(hint, value)
    except _Misfit as misfit:
        raise misfit.within(name) from None


def _tuple(hint: Any, entry: Any, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _Misfit(value, in_words(hint))
    if dataclasses.is_dataclass(entry):
        return tuple(_within(str(place), entry, each) for place, each in enumerate(value))
    try:
        return tuple(_fitting(entry, each) for each in value)
    except _Misfit:
        raise _Misfit(value, in_words(hint)) from None


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def table(*files: Any) -> list[list[str]]:
    """Tables of all keys of some files in Markdown: name, what it holds, what it means.

    A record that several keys hold is told at the first of them.
    """
    told: set[Any] = set()
    return [_rows(file, "", told) for file in files]


def _rows(cls: Any, within: str, told: set[Any]) -> list[str]:
    rows = []
    for field in dataclasses.fields(cls):
        hint = _hints(cls)[field.name]
        inner = _inner_record(hint)
        if field.metadata.get("beside"):
            rows += _rows(inner, within, told)
            continue
        name = f"{within}{field.name}"
        rows.append(f"| `{name}` | {in_words(hint)} | {field.metadata['meaning']} |")
        if inner is not None and inner not in told:
            told.add(inner)
            rows += _rows(inner, f"{name}.NAME." if _is_by_name(hint) else f"{name}.", told)
    return rows


def _is_by_name(hint: Any) -> bool:
    return dict in (typing.get_origin(hint), *map(typing.get_origin, typing.get_args(hint)))


def _inner_record(hint: Any) -> Any:
    """The record that a type holds, or None."""
    found = [hint, *typing.get_args(hint)]
    found += [part for each in found for part in typing.get_args(each)]
    return next((x for x in found if isinstance(x, type) and dataclasses.is_dataclass(x)), None)
