"""The one exception that means: the user gave something that cannot work.

One message is told in the words of who reads it: what is `--epochs=0` on the command line is
`epochs=0` in Python. So a message names settings by `setting`, and whoever shows it says how:

>>> raise InputError(f"{setting('epochs', 0)}: it must be 1 or more.")
"""

from __future__ import annotations

import difflib
import re
import shlex
import traceback
from collections.abc import Callable, Iterable
from typing import NamedTuple

# Around and inside a setting that a message holds; control characters, which no message has else.
_OPEN, _BETWEEN, _CLOSE = "\x02", "\x1f", "\x03"
_SETTING = re.compile(f"{_OPEN}(.*?){_BETWEEN}(.*?){_BETWEEN}(.*?){_CLOSE}", re.DOTALL)
_NO_VALUE = object()


class Setting(NamedTuple):
    """A setting in a message.

    Attributes:
        name: The field of a `Config`, or another argument or option.
        flag: What stands behind the dashes, such as `epochs=3` or `nooverwrite`.
        argument: What is passed in Python, such as `epochs=3` or `overwrite=False`.
    """

    name: str
    flag: str
    argument: str


# How a reader spells a setting.
Terms = Callable[[Setting], str]


def as_flag(said: Setting) -> str:
    """In the terms of who types a command: `--epochs=3`."""
    return f"--{said.flag}"


def as_argument(said: Setting) -> str:
    """In the terms of who writes Python: `epochs=3`."""
    return said.argument


def setting(name: str, value: object = _NO_VALUE, argument: str | None = None) -> str:
    """Names a setting inside a message.

    Args:
        name: The field of a `Config`, or another argument or option.
        value: Its value, where the message says one.
        argument: What a caller in Python passes, where that is not of the setting's name.

    Returns:
        A part of a message; `told` makes text of it.
    """
    flag = said = name
    if isinstance(value, bool):
        flag, said = name if value else f"no{name}", f"{name}={value}"
    elif value is not _NO_VALUE:
        flag, said = f"{name}={_typed(value)}", f"{name}={_passed(value)}"
    return f"{_OPEN}{name}{_BETWEEN}{flag}{_BETWEEN}{argument or said}{_CLOSE}"


def told(message: str, terms: Terms) -> str:
    """A message with its settings spelled as its reader sets them."""
    return _SETTING.sub(lambda match: terms(Setting(*match.groups())), message)


class InputError(ValueError):
    """Bad input, refused at the door: exit code 2, one message, no traceback.

    The message has three parts: what came, what is allowed, what to set. As text it is in
    Python's terms; a command tells it `as_flag`.

    Args:
        message: The message, with its settings named by `setting`.
        field: The setting that is at fault; the first one that the message names if None.

    Attributes:
        message: The message as it was given, to be told or to be put into another one.
        field: The name of the setting at fault; None where it is none.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(told(message, as_argument))
        first = _SETTING.search(message)
        self.message = message
        self.field = field or (first[1] if first else None)

    def told(self, terms: Terms) -> str:
        """The message in a reader's terms."""
        return told(self.message, terms)


class ExitCalled(Exception):
    """The user's code called `sys.exit`, which would end the run without a word.

    Args:
        call: What it raised, with its traceback.
    """

    def __init__(self, call: SystemExit) -> None:
        # sys.exit itself has no frame: the last one is where it was called.
        frames = traceback.extract_tb(call.__traceback__)
        where = f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
        super().__init__(f"sys.exit({call.code!r}) was called{where}")


def nearest_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Returns up to `limit` of `known` that look like `name`, best first."""
    return difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)


def unknown_name(kind: str, name: str, known: Iterable[str], field: str) -> InputError:
    """Makes the error for a name that is not in a list.

    Args:
        kind: What is named, such as `"model"`.
        name: What came.
        known: What is allowed.
        field: The setting that takes it, such as `"model"`.

    Returns:
        An `InputError` that lists the known names and the nearest guess.
    """
    known = list(known)
    near = nearest_names(name, known)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(
        f"Unknown {kind} {name!r}.{guess} {setting(field)} takes: {', '.join(known)}."
    )


def _typed(value: object) -> str:
    """A value as one types it behind a flag."""
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_typed, value))
    text = f"{value:.9g}" if isinstance(value, float) else str(value)
    return text if re.fullmatch(r"\S+", text) else shlex.quote(text)


def _passed(value: object) -> str:
    """A value as one passes it in Python."""
    return f"{value:.9g}" if isinstance(value, float) else repr(value)
