from __future__ import annotations

import datetime
import json
import os
import stat

import pytest

from tests.messages import naming, says
from tfamp.run import directory as directory_lib
from tfamp.run.directory import RunDirectory, write_json
from tfamp.run.errors import InputError, as_argument, as_flag
from tfamp.run.result import RunResult
from tfamp.run.run_config import RunConfig

OURS = "events.out.tfevents.1.host.1.0.tfamp"
# What a run leaves, and what lies beside it that is not a run's.
RUN = {
    "config.json": '{"written_by": "tfamp", "saves": ["final.weights.h5"]}',
    "metrics.jsonl": '{"kind": "step", "step": 1, "epoch": 0}\n',
    "final.weights.h5": "weights",
    f"train/{OURS}": "train events",
    f"validation/{OURS}": "validation events",
    OURS: "events",
}
NOT_A_RUNS = {
    "notes.txt": "keep",
    "report/index.html": "keep",
    "checkpoints/best.keras": "keep",
    "train/notes.txt": "keep",
    "train.log": "keep",
}
# Where a run's files lie once another takes its place.
ASIDE = {path.replace("tfevents", "replaced"): text for path, text in RUN.items()}


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "mine")


@pytest.fixture
def one_second(monkeypatch):
    """Every call of the clock falls into the same second."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 11, 24, 8, 15, 0, tzinfo=zone)

    monkeypatch.setattr(directory_lib.datetime, "datetime", Clock)
    return "replaced-20261124T081500Z"


def fill(run, status, files=RUN | NOT_A_RUNS):
    """Lays down what a run leaves, and things that are not a run's."""
    for name, text in files.items():
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text(text)
    if status is not None:
        run.result.write_text(json.dumps({"written_by": "tfamp", "status": status}))


def listing(run):
    return {str(p.relative_to(run.path)): p.read_text() for p in run.path.rglob("*") if p.is_file()}


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
        with pytest.raises(InputError, match=naming(run.path, "finished", "overwrite=True")):
            refuse()
    assert listing(run) == before


@pytest.mark.parametrize("status", ["completed", None, "failed", "interrupted"])
def test_a_runs_files_are_set_aside_and_no_others(run, status, one_second):
    fill(run, status)
    aside = run.prepare(overwrite=status == "completed")
    assert aside == run.path / one_second
    moved = listing(RunDirectory(aside))
    result = moved.pop("result.json", None)
    assert (None if result is None else json.loads(result)["status"]) == status
    assert moved == ASIDE
    left = {name: text for name, text in listing(run).items() if not name.startswith(one_second)}
    assert left == NOT_A_RUNS
    assert run.prepare() is None


def test_an_older_replaced_folder_is_never_touched(run, one_second):
    names = [one_second, f"{one_second}-2", f"{one_second}-3"]
    for name in names:
        fill(run, "failed", {"config.json": RUN["config.json"], OURS: name})
        assert run.prepare() == run.path / name
    events = "events.out.replaced.1.host.1.0.tfamp"
    assert [(run.path / name / events).read_text() for name in names] == names


@pytest.mark.parametrize("renames", range(len(RUN) + 1))
def test_a_kill_between_two_renames_loses_nothing(run, renames, monkeypatch, one_second):
    fill(run, "completed")
    with monkeypatch.context() as patch:
        calls = []

        def rename(source, target):
            calls.append(source)
            if len(calls) > renames:
                raise KeyboardInterrupt
            os.replace(source, target)

        patch.setattr(directory_lib.os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            run.prepare(overwrite=True)
    # The result goes first: a run that has lost a file is no finished one.
    run.prepare(overwrite=renames == 0)
    asides = [run.path / one_second, run.path / f"{one_second}-2"]
    # The second is there where the first did not take all.
    found = listing(RunDirectory(asides[0])) | listing(RunDirectory(asides[1]))
    assert json.loads(found.pop("result.json"))["status"] == "completed"
    assert found == ASIDE


def test_read_only_files_are_set_aside_too(run):
    fill(run, "failed")
    run.metrics.chmod(stat.S_IRUSR)
    aside = run.prepare()
    assert (aside / "metrics.jsonl").read_text() == RUN["metrics.jsonl"]


def test_a_trace_is_hidden_from_the_profiler(run):
    config = '{"written_by": "tfamp", "config": {"profile_steps": [1, 2]}}'
    fill(run, "failed", {"config.json": config, "train/plugins/profile/now/a.pb": "trace"})
    aside = run.prepare()
    assert (aside / "train/replaced-plugins/profile/now/a.pb").read_text() == "trace"
    assert not (run.path / "train" / "plugins").exists()


FOREIGN = {
    "train/cats/1.jpg": "cat",
    "validation/dogs/2.jpg": "dog",
    "checkpoints/best.keras": "model",
    "config.json": '{"mine": 1}',
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("named_by", "terms", "advice"),
    [
        (("run_name", "logdir"), as_flag, ("--run_name", "--logdir")),
        (("run_directory",), as_argument, ("run_directory",)),
    ],
)
def test_a_folder_of_somebody_elses_is_refused_and_untouched(
    run, overwrite, named_by, terms, advice
):
    fill(run, None, FOREIGN)
    before = listing(run)
    directory = RunDirectory(run.path, named_by=named_by)
    for refuse in (directory.check, directory.prepare):
        with pytest.raises(InputError) as refused:
            refuse(overwrite)
        found = "checkpoints/, config.json, train/cats/, validation/dogs/."
        assert says(refused.value.told(terms), run.path, found, *advice)
        assert "Set overwrite" not in str(refused.value)
    assert listing(run) == before


def test_of_many_foreign_files_some_are_named(run):
    fill(run, None, {f"train/{number}.jpg": "" for number in range(9)})
    with pytest.raises(InputError, match=naming("train/3.jpg", "train/4.jpg", "4 more")):
        run.prepare()


def test_what_a_run_would_write_over_is_foreign_though_a_run_was_here(run):
    fill(run, "failed", RUN | {"model.keras": "mine"})
    with pytest.raises(InputError, match=naming(": model.keras.")):
        RunDirectory(run.path, saves=["model.keras"]).prepare()
    run.prepare()
    assert (run.path / "model.keras").read_text() == "mine"


def test_a_script_reads_of_arguments(run):
    fill(run, "completed")
    with pytest.raises(InputError, match=naming("finished", "overwrite=True", "run_directory")):
        RunDirectory(run.path, named_by=("run_directory",)).prepare()


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
    with pytest.raises(InputError, match=naming(run.result, "Is a directory")):
        run.is_completed()


# Folders that cannot be written. Tests may run as root, whom no permission stops.


def test_a_file_where_the_logdir_should_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    run = RunDirectory(file / "run")
    for refuse in (run.check, run.prepare):
        with pytest.raises(InputError, match=naming(file, "logdir", "folder")):
            refuse()
    assert file.read_text() == "mine"


def test_a_file_where_the_run_should_be(tmp_path):
    (tmp_path / "run").write_text("mine")
    for refuse in (RunDirectory(tmp_path / "run").check, RunDirectory(tmp_path / "run").prepare):
        with pytest.raises(InputError, match=naming(tmp_path / "run", "logdir", "folder")):
            refuse()


def test_a_folder_below_a_device():
    with pytest.raises(InputError, match=naming("/dev/null", "logdir", "folder")):
        RunDirectory("/dev/null/x/run").check()


def test_a_folder_that_the_system_refuses_to_make():
    with pytest.raises(InputError, match=r"/proc"):
        RunDirectory("/proc/tfamp/run").prepare()


def test_a_folder_without_permission(run, monkeypatch):
    run.path.mkdir(parents=True)
    monkeypatch.setattr(directory_lib.os, "access", lambda path, mode: path != run.path)
    with pytest.raises(InputError, match=naming("read and write", run.path, "logdir")):
        run.check()


# Writing: marked, and whole.


def test_what_is_written_is_marked_and_says_what_the_run_saves(tmp_path):
    run = RunDirectory(tmp_path, saves=["final.weights.h5"])
    run.write_config(RunConfig(config={"seed": 1}))
    run.write_result(
        RunResult(status="failed", error="boom", policy="float32", loop="fit", model=None,
                  dataset=None, seed=None, tf32=False, jit_compile=None, device="CPU:0 (mine)",
                  versions={})
    )  # fmt: skip
    config, result = (json.loads(path.read_text()) for path in (run.config, run.result))
    for written in (config, result):
        assert (written["written_by"], written["schema_version"]) == ("tfamp", 1)
    assert (config["saves"], config["config"]) == (["final.weights.h5"], {"seed": 1})
    assert (result["status"], result["error"]) == ("failed", "boom")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.weights.h5"
    with directory_lib.written_whole(path) as partial:
        assert partial.name.endswith(".weights.h5") and not path.exists()
        partial.write_text("first")
    with pytest.raises(RuntimeError), directory_lib.written_whole(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.weights.h5"]
    assert path.read_text() == "first"


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
