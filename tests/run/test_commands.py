"""Printed commands are spelled as the user calls tfamp."""

import pytest

from tfamp.run import commands


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    monkeypatch.delenv("TFAMP_SCRIPTS", raising=False)
    monkeypatch.delenv("TFAMP_VENV", raising=False)


def test_without_the_scripts_the_modules_are_the_commands():
    assert commands.typed("report", "runs") == "python -m tfamp.report runs"
    assert commands.typed("tensorboard", "a b") == "python -m tensorboard.main --logdir 'a b'"


@pytest.mark.parametrize(
    ("scripts", "typed"),
    [
        ("scripts", "scripts/train.sh"),
        ("../scripts", "../scripts/train.sh"),
        ("/some where/scripts", "'/some where/scripts/train.sh'"),
    ],
)
def test_the_scripts_are_called_as_they_were(scripts, typed, monkeypatch):
    monkeypatch.setenv("TFAMP_SCRIPTS", scripts)
    assert commands.typed("train", "--policy=float32") == f"{typed} --policy=float32"


def test_an_environment_elsewhere_is_part_of_the_command(monkeypatch):
    monkeypatch.setenv("TFAMP_SCRIPTS", "scripts")
    monkeypatch.setenv("TFAMP_VENV", "/tmp/my venv")
    assert commands.typed("sweep") == "TFAMP_VENV='/tmp/my venv' scripts/sweep.sh"
