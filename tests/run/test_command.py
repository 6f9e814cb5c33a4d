"""A command is declared, not written: how it parses, speaks and ends is the same for all."""

from __future__ import annotations

import os
import signal

import pytest

from tests.messages import says
from tfamp.run import command
from tfamp.run.command import Command, Ended, Option, typed
from tfamp.run.errors import InputError, setting
from tfamp.run.kinds import Choice, Kind, Number, Switch
from tfamp.run.ranges import whole


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    monkeypatch.delenv("TFAMP_SCRIPTS", raising=False)
    monkeypatch.delenv("TFAMP_VENV", raising=False)


def toy(body=lambda given: command.DONE, **values):
    """A fourth command, which needs no new dialect."""
    options = {
        "shout": Option(False, Switch(), "Say it loudly."),
        "times": Option(1, Number(whole(1)), "How often to say it."),
        "mood": Option("glad", Choice("mood", ("glad", "sad")), "How to say it."),
        "to": Option(None, Kind(), "Whom to say it to."),
    }
    return Command(name="toy", about="Says things.", options=options, body=body, **values)


def refused(capsys, *arguments, **values):
    """The message of a refusal."""
    assert toy(**values).main(arguments) == 2
    said = capsys.readouterr()
    message, more = said.err.splitlines()
    assert said.out == "" and says(more, "--helpshort")
    assert message.startswith("tfamp: ")
    return message.removeprefix("tfamp: ")


def test_flags_and_places_are_read(tmp_path):
    (tmp_path / "toy.flags").write_text("--times=2\n--mood=sad\n")
    given = []
    say = toy(lambda read: given.append(read) or 0, places=("WHAT",), rest="MORE")
    file = f"--flagfile={tmp_path}/toy.flags"
    assert say.main(["--shout", "hello", file, "--to", "you", "--times=3", "--", "--to=me"]) == 0
    (read,) = given
    assert [read[name] for name in ("shout", "times", "mood", "to")] == [True, 3, "sad", "you"]
    assert (read.places, read.rest) == (("hello",), ("--to=me",))
    assert read.arguments[0] == "--shout"
    # Nothing is left for the next call.
    assert say.main(["hello"]) == 0
    assert [given[1][name] for name in ("shout", "times", "to")] == [False, 1, None]


@pytest.mark.parametrize("asked", ["--help", "-help", "--helpshort", "--helpfull", "-h"])
def test_help_is_an_answer(asked, capsys):
    def never(given):
        raise AssertionError

    assert toy(never, places=("WHAT",), rest="MORE").main(["--times=none", asked]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("Says things.\n")
    assert "python -m tfamp.toy WHAT [--flag=value ...] [-- MORE ...]" in said.out
    assert "  --[no]shout:\n    Say it loudly. Default: off." in said.out
    assert "  --times:\n    How often to say it. Takes a whole number, 1 or more." in said.out
    assert "Takes glad|sad. Default: glad." in said.out
    assert "--flagfile" in said.out


def test_help_behind_the_dashes_is_for_somebody_else():
    assert toy(lambda given: len(given.rest), rest="MORE").main(["--", "--help", "-h"]) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tims=3", "a"], ("flag 'tims'", "times")),
        (["--times=0", "a"], ("--times=0", 1)),
        (["--times=two", "a"], ("--times=two", "whole number")),
        (["--mood=said", "a"], ("mood 'said'", "'sad'", "--mood", "glad", "sad")),
        (["--shout=maybe", "a"], ("--shout=maybe", "on", "off")),
        (["--to"], ("Missing", "--to")),
        (["--flagfile=absent.flags"], ("flagfile", "'absent.flags'")),
        ([], ("WHAT", "python -m tfamp.toy WHAT [--flag=value ...]")),
        (["a", "b"], ("Unexpected", "'b'", "--flag=value")),
    ],
)
def test_bad_input_is_one_message(arguments, expected, capsys):
    assert says(refused(capsys, *arguments, places=("WHAT",)), *expected)


def test_an_unknown_flag_gets_the_commands_hint(capsys):
    assert refused(capsys, "--tims=3", hint="Look twice.").endswith(" Look twice.")


@pytest.mark.parametrize("argument", ["--sing=high", "--sing", "--nosing"])
def test_a_flag_of_another_command_is_refused_with_the_reason(argument, capsys):
    said = refused(capsys, argument, refused={"sing": "it only talks. Set --shout."})
    assert says(said, "--sing", "no effect", "it only talks. Set --shout.")


def test_bad_input_that_the_body_finds(capsys):
    def body(given):
        raise InputError(f"{setting('to', 'me')}: not to you.")

    assert refused(capsys, body=body) == "--to=me: not to you."
    spelled = refused(capsys, body=body, terms=lambda said: said.flag.upper())
    assert spelled == "TO=ME: not to you."


def raises(error):
    def body(given):
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Ended(command.FAILED, "It broke."), 1, "\nIt broke.\n"),
        (Ended(command.NO_ANSWER, "Nobody can tell."), 3, "\nNobody can tell.\n"),
        (command.stopped(signal.SIGTERM, "Stopped."), 143, "\nStopped.\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted.\n"),
    ],
)
def test_how_it_ends(error, code, said, capsys):
    assert toy(raises(error)).main([]) == code
    assert capsys.readouterr().err == said


def test_the_codes_are_those_that_are_told():
    codes = (command.DONE, command.FAILED, command.BAD_INPUT, command.NO_ANSWER)
    assert codes == (0, 1, 2, 3)


def test_a_failure_may_show_its_traceback(capsys):
    error = Ended(command.FAILED, "See the file.", ValueError("planted"))
    assert toy(raises(error)).main([]) == 1
    said = capsys.readouterr().err
    assert "ValueError: planted" in said and said.endswith("\nSee the file.\n")


def test_what_nobody_expected_is_shown_whole(capsys):
    assert toy(raises(ZeroDivisionError("planted"))).main([]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "ZeroDivisionError: planted" in said
    assert said.splitlines()[-1].startswith("python -m tfamp.toy failed")


def test_ctrl_c_says_what_it_ended(capsys):
    def body(given):
        with command.ctrl_c_ends("Nothing was said."):
            raise KeyboardInterrupt

    assert toy(body).main([]) == 130
    assert capsys.readouterr().err == "\nNothing was said.\n"


def test_a_reader_that_went_away(capfd):
    read, write = os.pipe()
    os.close(read)
    before = os.dup(1)
    os.dup2(write, 1)
    os.close(write)

    def body(given):
        os.write(1, b"hello")

    try:
        assert toy(body).main([]) == 128 + signal.SIGPIPE
    finally:
        os.dup2(before, 1)
        os.close(before)


# What is printed for the user to copy.


def test_without_the_scripts_the_modules_are_the_commands():
    assert typed("report", "runs") == "python -m tfamp.report runs"
    assert typed("tensorboard", "a b") == "python -m tensorboard.main --logdir 'a b'"
    assert typed("experiments.lab", "x") == "python -m experiments.lab x"


@pytest.mark.parametrize(
    ("scripts", "expected"),
    [
        ("scripts", "scripts/train.sh"),
        ("../scripts", "../scripts/train.sh"),
        ("/some where/scripts", "'/some where/scripts/train.sh'"),
    ],
)
def test_the_scripts_are_called_as_they_were(scripts, expected, monkeypatch):
    monkeypatch.setenv("TFAMP_SCRIPTS", scripts)
    assert typed("train", "--policy=float32") == f"{expected} --policy=float32"


def test_an_environment_elsewhere_is_part_of_the_command(monkeypatch):
    monkeypatch.setenv("TFAMP_SCRIPTS", "scripts")
    monkeypatch.setenv("TFAMP_VENV", "/tmp/my venv")
    assert typed("sweep") == "TFAMP_VENV='/tmp/my venv' scripts/sweep.sh"


def test_an_experiment_is_a_module_of_the_checkout(monkeypatch):
    monkeypatch.setenv("TFAMP_SCRIPTS", "../some where/scripts")
    assert typed("experiments.lab --x", "1") == (
        "'../some where/scripts/python.sh' -m experiments.lab --x 1"
    )
