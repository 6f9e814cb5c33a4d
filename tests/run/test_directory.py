from __future__ import annotations

import json
import os

import pytest

from tfamp.run import directory as directory_lib
from tfamp.run.directory import RunDirectory, write_json
from tfamp.run.errors import InputError

OWN = ("config.json", "metrics.jsonl", "result.json")


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "mine")


def fill(run, status):
    """Lays down what a run leaves, and two things that are not a run's."""
    run.path.mkdir(parents=True)
    for name in OWN:
        (run.path / name).write_text("{}")
    for name in ("train", "validation", "checkpoints"):
        (run.path / name / "deeper").mkdir(parents=True)
        (run.path / name / "deeper" / "events").touch()
    (run.path / "events.out.tfevents.1.host.1.0").touch()
    (run.path / "notes.txt").write_text("keep")
    (run.path / "report").mkdir()
    (run.path / "report" / "index.html").write_text("keep")
    if status is None:
        run.result.unlink()
    else:
        write_json(run.result, {"status": status})


def listing(run):
    return {
        str(p.relative_to(run.path)): p.read_bytes() for p in run.path.rglob("*") if p.is_file()
    }


def test_the_files_of_a_run(run):
    assert run.metrics == run.path / "metrics.jsonl"
    assert run.config == run.path / "config.json"
    assert run.result == run.path / "result.json"


def test_a_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDirectory("~/runs/mine").path == tmp_path / "runs" / "mine"


def test_preparing_makes_the_folder(run):
    run.check()
    assert not run.path.parent.exists()
    run.prepare()
    assert run.path.is_dir()
    assert list(run.path.iterdir()) == []


def test_a_completed_run_is_refused_and_untouched(run):
    fill(run, "completed")
    before = listing(run)
    for refuse in (run.check, run.prepare):
        with pytest.raises(InputError, match=r"holds a finished run\. Set --overwrite"):
            refuse()
    assert listing(run) == before


def test_overwriting_removes_what_is_a_runs_and_no_more(run):
    fill(run, "completed")
    run.prepare(overwrite=True)
    assert listing(run) == {"notes.txt": b"keep", "report/index.html": b"keep"}
    assert sorted(path.name for path in run.path.iterdir()) == ["notes.txt", "report"]


@pytest.mark.parametrize("status", [None, "failed", "interrupted"])
def test_leftovers_of_an_unfinished_run_are_removed_and_no_more(run, status):
    fill(run, status)
    assert not run.is_completed()
    run.check()
    run.prepare()
    assert listing(run) == {"notes.txt": b"keep", "report/index.html": b"keep"}


def test_checking_changes_nothing(run):
    fill(run, "failed")
    before = listing(run)
    run.check()
    assert listing(run) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '"completed"', '{"status": 1}'])
def test_a_result_that_is_no_result_is_no_finished_run(run, text):
    run.path.mkdir(parents=True)
    run.result.write_text(text)
    assert run.is_completed() is False


def test_a_result_that_cannot_be_read(run):
    run.result.mkdir(parents=True)
    with pytest.raises(InputError, match=r"Cannot read .*result\.json: Is a directory"):
        run.check()


# Folders that cannot be written. Tests may run as root, whom no permission stops.


def test_a_file_where_the_logdir_should_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    run = RunDirectory(file / "run")
    for refuse in (run.check, run.prepare):
        with pytest.raises(InputError, match="Set --logdir to a folder"):
            refuse()
    assert file.read_text() == "mine"


def test_a_file_where_the_run_should_be(tmp_path):
    (tmp_path / "run").write_text("mine")
    for refuse in (RunDirectory(tmp_path / "run").check, RunDirectory(tmp_path / "run").prepare):
        with pytest.raises(InputError, match="Set --logdir to a folder"):
            refuse()


def test_a_folder_below_a_device():
    with pytest.raises(InputError, match="Set --logdir to a folder"):
        RunDirectory("/dev/null/x/run").check()


def test_a_folder_that_the_system_refuses_to_make():
    with pytest.raises(InputError, match=r"/proc"):
        RunDirectory("/proc/tfamp/run").prepare()


def test_a_folder_without_permission(run, monkeypatch):
    run.path.mkdir(parents=True)
    monkeypatch.setattr(directory_lib.os, "access", lambda path, mode: path != run.path)
    with pytest.raises(InputError, match=r"Cannot read and write in .*mine\. Set --logdir"):
        run.check()


# Atomic writing.


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"status": "completed", "list": [1, 2]})
    assert json.loads(path.read_text()) == {"status": "completed", "list": [1, 2]}
    assert path.read_text().endswith("}\n")
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_json(path, {"status": "failed"})

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"status": "completed"})
    assert json.loads(path.read_text()) == {"status": "failed"}


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "result.json"
    write_json(path, {"status": "failed"})
    with pytest.raises((TypeError, ValueError)):
        write_json(path, {"status": "completed", "value": value})
    assert json.loads(path.read_text()) == {"status": "failed"}
