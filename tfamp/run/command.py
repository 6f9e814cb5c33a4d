"""One kind of command: what train, sweep, report and each further one do alike.

Its flags are absl's, so that `--flag=value`, `--flag value`, `--noflag` and `--flagfile=FILE` work,
and an unknown one gets the nearest guess. Bad input is one message on stderr. It ends in one of:

    0        done; or help was asked for
    1        failed
    2        bad input: nothing was done
    3        no answer: it ran as it should and cannot tell (the doctor's)
    128 + n  signal n ended it, such as 130 for Ctrl-C

A command that is printed is copied. The scripts of a checkout tell in TFAMP_SCRIPTS how they were
called, and the same way works again; without them, Python has the modules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags, logging

from tfamp.run import flags as run_flags
from tfamp.run.errors import InputError, Terms, as_flag, setting
from tfamp.run.kinds import Kind, Switch

DONE, FAILED, BAD_INPUT, NO_ANSWER = range(4)

_HELP = ("help", "helpshort", "helpfull", "h")
_MODULES = {"tensorboard": "tensorboard.main --logdir"}


class Ended(Exception):
    """What a command was to do is over, and not well.

    Args:
        code: The exit code.
        message: What is said of it on stderr.
        error: What is shown with its traceback first.
    """

    def __init__(self, code: int, message: str, error: BaseException | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.error = error


def stopped(signum: int, message: str) -> Ended:
    """A signal ended the command."""
    return Ended(128 + signum, message)


def quiet_libraries() -> None:
    """Gives the absl flags of libraries, which they ask for, their defaults, and lowers its log."""
    flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    # TFDS tells at INFO of what it tried before an error that says it better.
    logging.set_verbosity(logging.WARNING)


@contextlib.contextmanager
def ctrl_c_ends(message: str) -> Iterator[None]:
    """Says what a Ctrl-C inside has ended."""
    try:
        yield
    except KeyboardInterrupt:
        raise stopped(signal.SIGINT, message) from None


class Option(NamedTuple):
    """A flag of a command.

    Attributes:
        default: Its value where it is not given.
        kind: The kind of its values.
        help: What it does.
    """

    default: Any
    kind: Kind
    help: str


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user typed, read and checked.

    Attributes:
        flags: The command's flags.
        places: What stands without dashes, in the order of `Command.places`.
        rest: What follows `--`.
        arguments: All of it, as typed.
    """

    flags: flags.FlagValues
    places: tuple[str, ...]
    rest: tuple[str, ...]
    arguments: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        """The value of a flag."""
        return self.flags[name].value


@dataclasses.dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: What stands behind `tfamp.`.
        about: What it does, for its help.
        options: Its flags, by name.
        body: What it does; returns the exit code, or raises `InputError` or `Ended`.
        places: What it takes without dashes, each of which must be given, such as `LOGDIR`.
        rest: What it takes behind `--`, as the help calls it; None where it takes nothing there.
        hint: What a message of an unknown flag ends with.
        refused: Flags of other commands that have no effect here, by name, each with a sentence on
            why and what to do instead.
        terms: How its messages spell a setting.
    """

    name: str
    about: str
    options: Mapping[str, Option]
    body: Callable[[Given], int]
    places: tuple[str, ...] = ()
    rest: str | None = None
    hint: str = ""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    terms: Terms = as_flag

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Runs the command.

        Args:
            arguments: What follows the program's name; the process's own if None.

        Returns:
            The exit code.
        """
        given = tuple(sys.argv[1:] if arguments is None else arguments)
        try:
            if self._asks_for_help(given):
                print(self.help())
                return DONE
            return self.body(self.parse(given))
        except InputError as error:
            _say(f"tfamp: {error.told(self.terms)}")
            _say("Run with --helpshort to see every flag.")
            return BAD_INPUT
        except Ended as ended:
            if ended.error is not None:
                if sys.stdout.isatty():
                    print()  # A progress may have left its line open.
                traceback.print_exception(type(ended.error), ended.error, ended.error.__traceback__)
            _say(f"\n{ended}")
            return ended.code
        except KeyboardInterrupt:
            _say("\nInterrupted.")
            return 128 + signal.SIGINT
        except BrokenPipeError:
            # Whoever read this went away (`| head`); Python would complain of it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except Exception:
            traceback.print_exc()
            _say(f"\n{typed(self.name)} failed, and should have said why in one line.")
            return FAILED

    def parse(self, arguments: Sequence[str]) -> Given:
        """Reads what the user typed.

        Raises:
            InputError: A flag is unknown, a value is none of its kind or not allowed, or something
                is missing or too much.
        """
        own, rest = self._split(arguments)
        values = flags.FlagValues()
        for name, option in self.options.items():
            flags.DEFINE_flag(run_flags.flag(name, *option), values)
        # LOGDIR may stand behind a flag.
        values.set_gnu_getopt(True)
        try:
            places = values([self.name, *own])[1:]
        except flags.UnrecognizedFlagError as error:
            for name in (error.flagname, error.flagname.removeprefix("no")):
                if name in self.refused:
                    raise InputError(
                        f"{setting(name)} has no effect here: {self.refused[name]}"
                    ) from error
            raise InputError(f"{error}. {self.hint}".strip().replace("?.", "?")) from error
        except (flags.Error, UnicodeDecodeError) as error:
            raise run_flags.input_error(error) from error
        for name, option in self.options.items():
            if values[name].present:
                option.kind.check(name, values[name].value)
        if len(places) > len(self.places):
            extra = f"Unexpected argument {places[len(self.places)]!r}"
            raise InputError(f"{extra}: every option is a --flag=value. {self.hint}".strip())
        if len(places) < len(self.places):
            raise InputError(f"No {self.places[len(places)]} came. Give one: {self._usage()}")
        return Given(values, tuple(places), tuple(rest), tuple(arguments))

    def help(self) -> str:
        """What `--help`, `--helpshort`, `--helpfull` and `-h` print."""
        lines = [self.about.strip(), "", f"usage: {self._usage()}", ""]
        for name, option in sorted(self.options.items()):
            dashes = f"--[no]{name}" if isinstance(option.kind, Switch) else f"--{name}"
            lines += [f"  {dashes}:", textwrap.fill(_in_words(option), 96, **_INDENT)]
        return "\n".join([*lines, "  --flagfile:", "    A file of more flags, one a line."])

    def _usage(self) -> str:
        rest = [] if self.rest is None else [f"[-- {self.rest} ...]"]
        return " ".join([typed(self.name), *self.places, "[--flag=value ...]", *rest])

    def _split(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        found = list(arguments)
        if self.rest is None or "--" not in found:
            return found, []
        place = found.index("--")
        return found[:place], found[place + 1 :]

    def _asks_for_help(self, arguments: Sequence[str]) -> bool:
        own, _ = self._split(arguments)
        return any(one.startswith("-") and one.lstrip("-") in _HELP for one in own)


_INDENT: dict[str, Any] = {
    "initial_indent": "    ",
    "subsequent_indent": "    ",
    "break_on_hyphens": False,
    "break_long_words": False,
}


def _in_words(option: Option) -> str:
    kind, text = option.kind, option.help
    form = kind.form and f" Takes {kind.form}."
    if option.default in (None, (), ""):
        return text + form
    shown = kind.write(option.default) if not isinstance(kind, Switch) else _on_off(option.default)
    return f"{text}{form} Default: {shown}."


def _on_off(value: bool) -> str:
    return "on" if value else "off"


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def has_scripts() -> bool:
    """Whether a script of the checkout started this process."""
    return bool(os.environ.get("TFAMP_SCRIPTS"))


def typed(program: str, *arguments: str) -> str:
    """A command line to copy.

    Args:
        program: "train", "sweep", "report" or "tensorboard"; or "experiments.NAME", which is no
            part of what is installed, with what is always behind it.
        arguments: What follows; quoted where a shell asks for it.
    """
    is_experiment = program.startswith("experiments.")
    if has_scripts():
        venv = os.environ.get("TFAMP_VENV")
        command = f"TFAMP_VENV={shlex.quote(venv)} " if venv else ""
        script = "python" if is_experiment else program
        command += shlex.quote(os.path.join(os.environ["TFAMP_SCRIPTS"], f"{script}.sh"))
        command += f" -m {program}" if is_experiment else ""
    else:
        module = program if is_experiment else f"tfamp.{program}"
        command = f"python -m {_MODULES.get(program, module)}"
    return " ".join([command, *map(shlex.quote, arguments)])
