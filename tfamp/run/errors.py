"""The one exception that means: the user gave something that cannot work."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input, refused at the door: exit code 2, one message, no traceback.

    The message has three parts: what came, what is allowed, what to set.
    """


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


def unknown_name(kind: str, name: str, known: Iterable[str], flag: str) -> InputError:
    """Makes the error for a name that is not in a list.

    Args:
        kind: What is named, such as `"model"`.
        name: What came.
        known: What is allowed.
        flag: The flag to set, with its dashes.

    Returns:
        An `InputError` that lists the known names and the nearest guess.
    """
    known = list(known)
    near = nearest_names(name, known)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"Unknown {kind} {name!r}.{guess} {flag} takes: {', '.join(known)}.")
