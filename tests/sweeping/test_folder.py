from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys

import pytest

from tests.messages import naming, says
from tfamp.run.errors import InputError
from tfamp.sweeping.folder import SweepFolder


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(tmp_path / "deep" / "runs")


def never(*_):
    raise AssertionError("It should not have come to this.")


@pytest.fixture
def gone():
    """The number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_lock_makes_the_folder_and_names_the_process(folder):
    with folder.locked(never, never) as lock:
        assert (folder.path / ".sweep.lock").read_text() == f"{os.getpid()}\n"
        assert not os.get_inheritable(lock)
    with folder.locked(never, never):
        pass


def test_a_second_sweep_is_refused_at_once(folder):
    first, second = folder.locked(never, never), folder.locked(never, never)
    with first, pytest.raises(InputError) as raised, second:
        never()
    assert says(str(raised.value), "sweep", os.getpid(), folder.path, "LOGDIR")


def orphaned(folder, pid):
    """The lock as a process of a killed sweep holds it."""
    folder.path.mkdir(parents=True)
    (folder.path / ".sweep.lock").write_text(f"{pid}\n")
    lock = os.open(folder.path / ".sweep.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_what_a_killed_sweep_left_is_waited_for(folder, gone):
    lock, said, waits = orphaned(folder, gone), [], []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            os.close(lock)

    with folder.locked(said.append, sleep):
        assert (folder.path / ".sweep.lock").read_text() == f"{os.getpid()}\n"
    (line,) = said
    assert says(line, "killed", folder.path, "waiting")
    assert len(waits) == 3


def test_not_for_ever(folder, gone):
    lock, waits = orphaned(folder, gone), []
    locked = folder.locked(lambda line: None, waits.append)
    with pytest.raises(InputError, match=naming("sweep", gone, folder.path)), locked:
        never()
    assert sum(waits) == pytest.approx(30.0)
    os.close(lock)


def test_the_lock_goes_to_processes_that_inherit_it(folder):
    with folder.locked(never, never) as lock:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "input()"],
            stdin=subprocess.PIPE,
            pass_fds=(lock,),
        )
    with pytest.raises(InputError), folder.locked(never, never):
        never()
    process.communicate(b"\n")
    with folder.locked(never, never):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    locked = SweepFolder(tmp_path / "file" / "runs").locked(never, never)
    with (
        pytest.raises(InputError, match=naming("Cannot write", tmp_path / "file", "LOGDIR")),
        locked,
    ):
        never()


def note(folder):
    return json.loads((folder.path / "sweep.json").read_text())


def test_the_note(folder):
    folder.path.mkdir(parents=True)
    folder.note(["sweep", "runs"], 1, ["b", "a"])
    assert note(folder) == {
        "schema_version": 1,
        "command_line": ["sweep", "runs"],
        "jobs": 1,
        "cells": ["b", "a"],
    }


def test_the_note_keeps_the_cells_of_sweeps_before(folder):
    folder.path.mkdir(parents=True)
    folder.note(["first"], 3, ["b", "a"])
    folder.note(["second"], 2, ["c", "a", "d"])
    assert note(folder) == {
        "schema_version": 1,
        "command_line": ["second"],
        "jobs": 3,
        "cells": ["b", "a", "c", "d"],
    }
    folder.note(["third"], 4, ["a"])
    assert (note(folder)["jobs"], note(folder)["cells"]) == (4, ["b", "a", "c", "d"])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 2}'])
def test_a_note_of_something_else(content, folder):
    folder.path.mkdir(parents=True)
    (folder.path / "sweep.json").write_text(content)
    with pytest.raises(InputError, match=naming(folder.path / "sweep.json", "Remove")):
        folder.note(["sweep"], 1, ["a"])
    assert (folder.path / "sweep.json").read_text() == content
