"""The benchmarks' command lines: bad input is one message and exit code 2, before anything runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from tfamp.run.errors import InputError, as_flag


def run(main: Callable[[], None]) -> None:
    """Parses the flags, checks `--out` and runs `main`; the benchmark's last line."""

    def guarded(argv: list[str]) -> None:
        try:
            main()
        except InputError as error:
            _refuse(error)

    app.run(guarded, flags_parser=_parse)


def at_least(name: str, minimum: int) -> None:
    """Refuses a number below `minimum`."""
    flags.register_validator(
        name, lambda value: value is None or value >= minimum, f"it must be {minimum} or more"
    )


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"Unexpected argument {rest[1]!r}: every option is a --flag=value.")
        _check_out(flags.FLAGS.out)
        return rest
    except (flags.Error, InputError) as error:
        _refuse(error)


def _check_out(out: str | None) -> None:
    # A measurement takes minutes: not at its end.
    if out is None:
        return
    folder = os.path.dirname(out) or "."
    if os.path.isdir(out) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(f"--out={out}: give a JSON file in a folder that you can write to.")


def _refuse(error: Exception) -> NoReturn:
    message = error.told(as_flag) if isinstance(error, InputError) else str(error)
    print(f"tfamp: {message}", file=sys.stderr)
    print("Run with --help to see every flag.", file=sys.stderr)
    sys.exit(2)
