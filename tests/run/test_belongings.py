"""Whose the files in a run's folder are."""

from __future__ import annotations

import json
import os

import pytest

from tfamp.run import belongings

OLD_CONFIG = {"schema_version": 1, "command_line": ["train"], "config": {"policy": "float32"}}
NEW_CONFIG = {"written_by": "tfamp", "saves": ["final.weights.h5", "model.keras"]} | OLD_CONFIG
ROW = '{"kind": "step", "step": 1, "epoch": 0}\n'
OURS = "events.out.tfevents.1.host.1.0.tfamp"
# Of Keras's callback, of PyTorch's writer and of tfamp before the mark, of another process.
KERAS, PLAIN = "events.out.tfevents.1.host.1.0.v2", "events.out.tfevents.1.host.1.0"


def lay(folder, files):
    """Writes files; a value that is no text is JSON, None an empty folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


def look(folder, files, saves=()):
    lay(folder, files)
    found = belongings.look(folder, saves)
    return [str(path) for path in found.own], [str(path) for path in found.foreign]


def test_a_folder_that_is_not_there(tmp_path):
    assert belongings.look(tmp_path / "absent") == belongings.Belongings((), ())


# Folders in which no run was.


@pytest.mark.parametrize(
    ("files", "foreign"),
    [
        ({"notes.txt": "mine", "src/train/a.py": "mine"}, []),
        ({"train": None, "validation": None, "checkpoints": None, "report": None}, []),
        ({"train/cats/1.jpg": "", "validation/dogs/2.jpg": ""}, ["train/cats", "validation/dogs"]),
        ({"train/.hidden": ""}, ["train/.hidden"]),
        ({"train": "a file"}, ["train"]),
        ({"checkpoints/best.keras": ""}, ["checkpoints"]),
        ({"report/thesis.tex": ""}, ["report"]),
        ({"config.json": {"lr": 1}}, ["config.json"]),
        ({"config.json": {"schema_version": 1, "model": "mine"}}, ["config.json"]),
        ({"config.json": {"schema_version": 2, "command_line": []}}, ["config.json"]),
        ({"config.json": {"written_by": "me"}}, ["config.json"]),
        ({"config.json": "no JSON"}, ["config.json"]),
        ({"config.json": [1]}, ["config.json"]),
        ({"config.json/deeper": ""}, ["config.json"]),
        ({"result.json": {"status": "completed"}}, ["result.json"]),
        ({"result.json": {"schema_version": 1, "status": "fine"}}, ["result.json"]),
        ({"metrics.jsonl": '{"epoch": 1, "loss": 2.0}\n'}, ["metrics.jsonl"]),
        ({"metrics.jsonl": '{"kind": "step", "step": "1", "epoch": 0}\n'}, ["metrics.jsonl"]),
        ({"metrics.jsonl": ""}, ["metrics.jsonl"]),
        ({"final.weights.h5": ""}, ["final.weights.h5"]),
        ({"model.keras": "", "best.weights.h5": ""}, ["best.weights.h5", "model.keras"]),
        ({KERAS: "", f"train/{KERAS}": "", f"train/{PLAIN}": ""},
         [KERAS, f"train/{PLAIN}", f"train/{KERAS}"]),
        ({"train/plugins/profile/now/host.xplane.pb": ""}, ["train/plugins"]),
    ],
)  # fmt: skip
def test_what_is_foreign_where_no_run_was(files, foreign, tmp_path):
    assert look(tmp_path, files) == ([], foreign)


def test_marked_files_are_a_runs_wherever_they_lie(tmp_path):
    files = {f"train/{OURS}": "", OURS: "", "metrics.jsonl": ROW, "train/cats": ""}
    own, foreign = look(tmp_path, files)
    assert own == [OURS, "metrics.jsonl", f"train/{OURS}"]
    assert foreign == ["train/cats"]


# Folders of runs.

LEFT = {"train.log": "", "notes.txt": "", "checkpoints/best.keras": "", "report/report.html": "",
        "train/notes.txt": "", "train/cats/1.jpg": "", "mine.keras": "", "plugins/a": "",
        "validation/plugins/a": ""}  # fmt: skip


@pytest.mark.parametrize("config", [OLD_CONFIG, NEW_CONFIG], ids=["before the mark", "marked"])
def test_the_files_of_a_run_and_no_others(config, tmp_path):
    files = {
        "config.json": config,
        "metrics.jsonl": ROW,
        "result.json": {"schema_version": 1, "status": "failed"},
        f"train/{OURS}": "",
        # As runs of before the mark left them.
        f"validation/{PLAIN}": "",
        PLAIN: "",
        ".tfamp-partial-model.keras": "half",
    }
    own, foreign = look(tmp_path, files | LEFT)
    assert sorted(own) == sorted(files)
    assert (own[0], own[-1]) == ("result.json", "config.json")
    assert foreign == []


@pytest.mark.parametrize(
    "evidence",
    [
        {"result.json": {"schema_version": 1, "status": "interrupted"}},
        {"replaced-20261124T081500Z/config.json": NEW_CONFIG},
        {"replaced-20261124T081500Z-2/config.json": NEW_CONFIG},
    ],
)
def test_what_else_says_that_a_run_was_here(evidence, tmp_path):
    own, foreign = look(tmp_path, LEFT | {f"train/{KERAS}": "", "model.keras": ""} | evidence)
    assert own == [name for name in evidence if name == "result.json"]
    # Nothing says that the model or the unmarked events were the run's.
    assert foreign == []


def test_weights_and_models_are_a_runs_where_its_config_names_them(tmp_path):
    files = {"config.json": NEW_CONFIG, "model.keras": "", "best.weights.h5": "theirs"}
    assert look(tmp_path, files) == (["model.keras", "config.json"], [])
    found = belongings.look(tmp_path, ["best.weights.h5", "final.weights.h5"])
    assert [str(path) for path in found.foreign] == ["best.weights.h5"]
    assert look(tmp_path, {"config.json": OLD_CONFIG}, ["model.keras"])[1] == ["model.keras"]


def test_a_foreign_file_in_a_runs_place_is_foreign_beside_a_run_too(tmp_path):
    files = {"config.json": NEW_CONFIG, "result.json": {"mine": 1}, "metrics.jsonl": "mine\n",
             "train": "a file"}  # fmt: skip
    own, foreign = look(tmp_path, files)
    assert own == ["config.json"]
    assert foreign == ["metrics.jsonl", "result.json", "train"]


@pytest.mark.parametrize("rows", ["", '{"kind": "st'])
def test_rows_of_a_run_that_was_killed_before_its_first(rows, tmp_path):
    own, _ = look(tmp_path, {"config.json": NEW_CONFIG, "metrics.jsonl": rows})
    assert own == ["metrics.jsonl", "config.json"]


@pytest.mark.parametrize("steps", [None, [2, 3]])
def test_a_trace_is_a_runs_that_was_to_make_one(steps, tmp_path):
    config = NEW_CONFIG | {"config": {"profile_steps": steps}}
    files = {"config.json": config, "train/plugins/profile/now/host.xplane.pb": ""}
    own, foreign = look(tmp_path, files)
    assert own == (["train/plugins"] if steps else []) + ["config.json"]
    assert foreign == []


def test_events_that_this_very_process_writes_stay(tmp_path):
    live = f"train/events.out.tfevents.1795508149.my.host.{os.getpid()}.0.v2"
    assert look(tmp_path, {live: ""}) == ([], [])
    assert look(tmp_path, {"config.json": OLD_CONFIG}) == (["config.json"], [])
    ours = f"train/events.out.tfevents.1795508149.my.host.{os.getpid()}.0.tfamp"
    assert look(tmp_path, {ours: ""}) == ([ours, "config.json"], [])


# Links.


@pytest.mark.parametrize("is_run", [True, False])
@pytest.mark.parametrize("name", ["train", "metrics.jsonl", "result.json"])
def test_a_link_under_a_runs_name_is_foreign(name, is_run, tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    lay(elsewhere, {f"train/{OURS}": "", "metrics.jsonl": ROW, "result.json": NEW_CONFIG})
    run.mkdir()
    (run / name).symlink_to(elsewhere / name)
    assert look(run, {"config.json": NEW_CONFIG} if is_run else {})[1] == [name]


def test_links_among_events_are_left_alone(tmp_path):
    lay(tmp_path, {"elsewhere": "", "run/train": None})
    (tmp_path / "run" / "train" / OURS).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run" / "train" / "plugins").symlink_to(tmp_path)
    config = NEW_CONFIG | {"config": {"profile_steps": [1, 2]}}
    own, foreign = look(tmp_path / "run", {"config.json": config})
    assert own == ["config.json"]
    assert foreign == ["train/plugins"]


def test_names_of_replaced_folders():
    assert belongings.is_replaced("replaced-20261124T081500Z")
    assert belongings.is_replaced("replaced-20261124T081500Z-12")
    assert not belongings.is_replaced("replaced-by-mine")
