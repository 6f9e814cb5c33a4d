"""The command line of the trainer: absl flags, read here and nowhere else.

Each flag is a setting of `Config`, as it is declared there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from absl import flags

from tfamp.run.config import Config, declarations
from tfamp.run.errors import InputError, setting
from tfamp.run.kinds import Choice, Kind, Switch
from tfamp.run.resolve import resolve


class _Parser(flags.ArgumentParser):
    """Reads a flag's text as the kind of its setting does."""

    def __init__(self, name: str, kind: Kind) -> None:
        self._name, self._kind = name, kind
        # A choice is shown before its help.
        self.syntactic_help = "" if isinstance(kind, Choice) else kind.form

    def parse(self, argument: Any) -> Any:
        if not isinstance(argument, str):
            return argument
        try:
            return self._kind.read(argument)
        except ValueError as error:
            raise InputError(f"{setting(self._name, argument)}: {error}") from error

    def flag_type(self) -> str:
        return type(self._kind).__name__.lower()


class _Serializer(flags.ArgumentSerializer):
    """Writes what `_Parser` reads."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def serialize(self, value: Any) -> str:
        return self._kind.write(value)


def define(values: flags.FlagValues, config: type[Config] = Config) -> None:
    """Defines a flag for each setting of a config."""
    for name, each in declarations(config).items():
        flags.DEFINE_flag(flag(name, getattr(config, name), each.kind, each.help), values)


def flag(name: str, default: Any, kind: Kind, text: str) -> flags.Flag:
    """A flag that takes values of a kind; `text` is its help."""
    parser = _Parser(name, kind)
    if isinstance(kind, Switch):
        switch = flags.BooleanFlag(name, default, text)
        switch.parser = parser
        return switch
    if isinstance(kind, Choice):
        text = f"<{kind.form}>: {text}"
    return flags.Flag(parser, _Serializer(kind), name, default, text)


def config_from_flags(values: flags.FlagValues, config: type[Config] = Config) -> Config:
    """Turns parsed flags into a checked and resolved `Config`.

    Raises:
        InputError: A value is not allowed, or two values contradict each other.
    """
    read = {name: values[name].value for name in declarations(config)}
    return resolve(config(**read), [name for name in read if values[name].present])


def asked(values: flags.FlagValues) -> dict[str, Any]:
    """The settings that the user gave, those of flagfiles too, of those that the flags have."""
    names = [name for name in declarations() if name in values]
    return {name: values[name].value for name in names if values[name].present}


def parse(arguments: Sequence[str]) -> flags.FlagValues:
    """Parses arguments into flags of their own; the process's flags are left as they are.

    Args:
        arguments: What follows the program's name, such as `["--policy=float16"]`.

    Raises:
        InputError: A flag is unknown, a value is none of its kind, or something is no flag.
    """
    values = flags.FlagValues()
    define(values)
    try:
        _refuse_the_rest(values(["tfamp.train", *arguments]))
    except (flags.Error, UnicodeDecodeError) as error:
        raise input_error(error) from error
    return values


def config_from_arguments(arguments: Sequence[str]) -> Config:
    """The checked and resolved `Config` that the trainer would make of these arguments.

    Raises:
        InputError: The trainer would refuse them.
    """
    return config_from_flags(parse(arguments))


def without_flagfiles(arguments: Sequence[str]) -> list[str]:
    """The arguments that were written out, without `--flagfile=FILE` and `--flagfile FILE`."""
    written, is_file = [], False
    for argument in arguments:
        if is_file:
            is_file = False
        elif argument in ("--flagfile", "-flagfile"):
            is_file = True
        elif not argument.startswith(("--flagfile=", "-flagfile=")):
            written.append(argument)
    return written


def as_arguments(values: flags.FlagValues, but: Collection[str] = ()) -> list[str]:
    """The flags that were given, those of flagfiles too, as arguments to give again.

    Args:
        values: Parsed flags.
        but: Names of flags to leave out.
    """
    given = [name for name in declarations() if values[name].present and name not in but]
    # absl writes nothing for a limit that is none.
    return [values[name].serialize() or f"--{name}=none" for name in given]


def input_error(error: flags.Error | UnicodeDecodeError) -> InputError:
    """What absl found wrong with a command line, as an error of the user's."""
    # What `_Parser` raised, which absl puts into words of its own.
    if isinstance(error.__context__, InputError):
        return error.__context__
    if isinstance(error, UnicodeDecodeError):
        return InputError(f"--flagfile: it is no text in UTF-8 ({error}).", "flagfile")
    # absl's own prefix of a flagfile that is not there.
    return InputError(str(error).removeprefix("ERROR:: "))


def _refuse_the_rest(rest: Sequence[str]) -> None:
    if len(rest) > 1:
        raise InputError(f"Unexpected argument {rest[1]!r}: every option is a --flag=value.")
