"""The kinds of values that a setting can have: how each is typed, and which are allowed."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any, ClassVar

from tfamp.run.errors import InputError, setting, unknown_name
from tfamp.run.ranges import Range, written

# Linux's NAME_MAX, in bytes.
LONGEST_NAME = 255


class Kind:
    """A text, of which any is allowed; the other kinds refine it.

    Attributes:
        form: What is typed, for `--help`; empty where the help text says it.
    """

    form = ""

    def read(self, text: str) -> Any:
        """The value that a text means.

        Raises:
            ValueError: The text is none of this kind; the message goes on after "--flag=text: ".
        """
        return text

    def write(self, value: Any) -> str:
        """A text that `read` makes the same value of."""
        return str(value)

    def check(self, name: str, value: Any) -> None:
        """Refuses a value of a setting that is of this kind and not allowed.

        Raises:
            InputError: As said.
        """


@dataclasses.dataclass(frozen=True)
class Text(Kind):
    """A text that a rule checks.

    Attributes:
        rule: Called with the setting's name and the text; raises what it refuses.
    """

    rule: Callable[[str, str], None]

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        self.rule(name, value)


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of some names.

    Attributes:
        what: What is named, such as `"policy"`.
        names: The names.
    """

    what: str
    names: tuple[str, ...]

    @property
    def form(self) -> str:  # type: ignore[override]
        """See `Kind`."""
        return "|".join(self.names)

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        if value not in self.names:
            raise unknown_name(self.what, value, self.names, name)


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """A number in a range.

    Attributes:
        range: What is allowed.
    """

    range: Range

    @property
    def form(self) -> str:  # type: ignore[override]
        """See `Kind`."""
        return f"a {'whole ' if self.range.is_whole else ''}number, {self.range}"

    def read(self, text: str) -> float | None:
        """See `Kind`."""
        if self.range.or_none and text.lower() == "none":
            return None
        try:
            return int(text) if self.range.is_whole else float(text)
        except ValueError:
            raise ValueError(f"it must be {self.form}.") from None

    def write(self, value: Any) -> str:
        """See `Kind`."""
        if value is None:
            return "none"
        return written(value) if isinstance(value, float) else str(value)

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        why_not = self.range.why_not(value)
        if why_not:
            raise InputError(f"{setting(name, value)}: {why_not}")


class Switch(Kind):
    """On or off."""

    def read(self, text: str) -> bool:
        """See `Kind`."""
        for value, words in (
            (True, ("on", "true", "t", "1")),
            (False, ("off", "false", "f", "0")),
        ):
            if text.lower() in words:
                return value
        raise ValueError("it must be on or off.")

    def write(self, value: Any) -> str:
        """See `Kind`."""
        return "true" if value else "false"


class Patterns(Kind):
    """Regular expressions with a comma between two."""

    form = "a comma separated list"

    def read(self, text: str) -> tuple[str, ...]:
        """See `Kind`; a pattern with a comma stands in double quotes."""
        rows = csv.reader([text], strict=True)
        try:
            return tuple(part.strip() for row in rows for part in row if part.strip())
        except csv.Error as error:
            raise ValueError(f"it must be a comma separated list ({error}).") from None

    def write(self, value: Any) -> str:
        """See `Kind`."""
        return ",".join(f'"{part}"' if "," in part else part for part in value)

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"{setting(name)}: {pattern!r} is no regular expression ({error})."
                ) from error


class _FirstAndLast(Kind):
    """Two whole numbers, with a sign between them.

    Attributes:
        sign: The sign.
        such_as: What an error adds, an example.
    """

    sign: ClassVar[str]
    such_as: ClassVar[str] = ""

    def read(self, text: str) -> tuple[int, int]:
        """See `Kind`."""
        try:
            first, last = map(int, text.split(self.sign))
        except ValueError:
            raise ValueError(f"it must be two whole numbers A{self.sign}B{self.such_as}.") from None
        return first, last

    def write(self, value: Any) -> str:
        """See `Kind`."""
        return f"{value[0]}{self.sign}{value[1]}"


class StepRange(_FirstAndLast):
    """The first and the last of some steps."""

    form = "two whole numbers, A,B"
    sign = ","

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        first, last = value
        if not 1 <= first <= last:
            raise InputError(
                f"{setting(name, (first, last))}: give the first and the last step, counted from "
                f"1, such as {setting(name, (20, 25))}."
            )


@dataclasses.dataclass(frozen=True)
class Exponents(_FirstAndLast):
    """The first and the last of some whole numbers, of powers of two.

    Attributes:
        range: What is allowed of both.
    """

    range: Range

    form = "two whole numbers, A:B"
    sign = ":"
    such_as = ", such as 0:24"

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        first, last = value
        if first > last:
            raise InputError(
                f"{setting(name, self.write(value))}: {first} is above {last}. Give the smallest "
                f"first, as in {setting(name, self.write((last, first)))}."
            )
        for bound in value:
            why_not = self.range.why_not(bound)
            if why_not:
                raise InputError(f"{setting(name, self.write(value))}: of {bound}, {why_not}")


@dataclasses.dataclass(frozen=True)
class Names(Kind):
    """Some of the names that there are, with a comma between two.

    Attributes:
        what: What is named, such as `"precision"`.
        names: The names.
    """

    what: str
    names: tuple[str, ...]

    @property
    def form(self) -> str:  # type: ignore[override]
        """See `Kind`."""
        return f"some of {', '.join(self.names)}, with a comma between two"

    def read(self, text: str) -> tuple[str, ...]:
        """See `Kind`."""
        return tuple(part.strip() for part in text.split(","))

    def write(self, value: Any) -> str:
        """See `Kind`."""
        return ",".join(value)

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        for part in value:
            if part not in self.names:
                raise unknown_name(self.what, part, self.names, name)
            if value.count(part) > 1:
                raise InputError(
                    f"{setting(name, self.write(value))}: {part} is there twice. Leave one out."
                )


class Folder(Kind):
    """A folder, which need not be there."""

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        if not value.strip() or "\0" in value:
            raise InputError(f"{setting(name, value)}: give a folder, such as runs.")
        if value.startswith("~") and os.path.expanduser(value) == value:
            raise InputError(
                f"{setting(name, value)}: there is no such user's home. Set {setting(name)} to a "
                "folder that is there or can be made; one whose name begins with ~ as ./~name."
            )


class FolderName(Kind):
    """The name of a folder in another one."""

    def check(self, name: str, value: Any) -> None:
        """See `Kind`."""
        if value in (".", "..") or "/" in value or "\0" in value or not value.strip():
            raise InputError(f"{setting(name, value)}: give one folder name without '/'.")
        if len(os.fsencode(value)) > LONGEST_NAME:
            raise InputError(
                f"{setting(name, value)}: a folder's name takes {LONGEST_NAME} bytes at most. Set "
                f"a shorter {setting(name)}."
            )
