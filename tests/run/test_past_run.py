"""Runs that another command goes on from: what is read, and what each broken one is told."""

from __future__ import annotations

import json

import pytest

from tests.messages import says
from tests.reporting.made_runs import rewrite, write_run
from tfamp.run import past_run
from tfamp.run.errors import InputError, as_flag
from tfamp.run.result import FINAL_WEIGHTS


@pytest.fixture
def folder(tmp_path):
    """A completed float16 run, whose scale ended at 2^13."""
    values = {"policy": "mixed_float16", "batch_size": 8, "scales": [2.0**14] * 59 + [2.0**13]}
    folder = write_run(tmp_path, name="run", **values)
    (folder / FINAL_WEIGHTS).touch()
    return folder


def refused(path):
    with pytest.raises(InputError) as raised:
        past_run.read(path)
    assert raised.value.field == "run"
    return raised.value.told(as_flag)


def test_what_a_run_left(folder):
    run = past_run.read(folder)
    assert (run.config.policy, run.config.batch_size) == ("mixed_float16", 8)
    assert run.weights == folder / FINAL_WEIGHTS
    assert (run.settled_log2_scale, run.steps) == (13.0, 60)


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_did_not_complete_is_one_too(status, folder):
    rewrite(folder / "result.json", status=status)
    assert past_run.read(folder).settled_log2_scale == 13.0


@pytest.mark.parametrize("content", [None, "", "[]", '{"schema_version": 9}'])
def test_without_a_result_nothing_is_known_of_its_end(content, folder):
    (folder / "result.json").unlink()
    if content is not None:
        (folder / "result.json").write_text(content)
    run = past_run.read(folder)
    assert (run.result, run.settled_log2_scale, run.steps) == (None, None, 0)


def test_a_run_that_scaled_nothing_settled_nowhere(tmp_path):
    folder = write_run(tmp_path, policy="float32")
    (folder / FINAL_WEIGHTS).touch()
    assert past_run.read(folder).settled_log2_scale is None


def test_what_is_no_run(tmp_path):
    assert says(refused(tmp_path / "gone"), f"--run={tmp_path}/gone", "no such folder")
    (tmp_path / "file").touch()
    assert says(refused(tmp_path / "file"), f"--run={tmp_path}/file", "no folder")
    (tmp_path / "empty").mkdir()
    assert says(refused(tmp_path / "empty"), f"--run={tmp_path}/empty", "config.json")


def test_a_folder_of_runs_is_told_apart_from_a_run(tmp_path):
    for name in "dcba":
        write_run(tmp_path, name=name)
    told = refused(tmp_path)
    assert says(told, f"--run={tmp_path}", "a, b, c", "1 more", "one run")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", ("config.json",)),
        ("{}", ("config.json", "schema")),
        ('{"schema_version": 1}', ("config.json", "config")),
        ('{"schema_version": 9}', ("config.json", 9, 1, "Train it again")),
        ('{"schema_version": 1, "config": {"policy": 3}}', ("config.json", "policy=3")),
    ],
)
def test_a_config_that_cannot_be_read(content, told, folder):
    (folder / "config.json").write_text(content)
    assert says(refused(folder), f"--run={folder}", *told)


def test_the_run_of_a_script(folder):
    config = json.loads((folder / "config.json").read_text())["config"]
    rewrite(folder / "config.json", config=config | {"dataset": None})
    assert says(refused(folder), f"--run={folder}", "script", "tfamp.gradient_fidelity")


def test_a_run_without_weights(folder):
    (folder / FINAL_WEIGHTS).unlink()
    assert says(refused(folder), f"--run={folder}", FINAL_WEIGHTS, "Train it again")
    rewrite(
        folder / "result.json", saved={"are_averages": False, "why_no_weights": "OSError: full"}
    )
    assert says(refused(folder), FINAL_WEIGHTS, "OSError: full.")
    (folder / "result.json").unlink()
    assert says(refused(folder), FINAL_WEIGHTS, "trains still")
    config = json.loads((folder / "config.json").read_text())["config"]
    rewrite(folder / "config.json", config=config | {"save_model": False})
    assert says(refused(folder), FINAL_WEIGHTS, "--nosave_model")
