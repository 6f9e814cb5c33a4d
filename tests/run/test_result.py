"""result.json and config.json: what an older one lacks, whose they are, and their table."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tfamp.run import result, run_config, schema
from tfamp.run.config import Config
from tfamp.run.fidelity import Window
from tfamp.run.result import AutoScale, LossScale, RunResult
from tfamp.run.run_config import RunConfig
from tfamp.run.schema import RecordError

# As the first version wrote it, less what it has in common with today's.
OLDEST = {
    "schema_version": 1,
    "status": "completed",
    "error": None,
    "policy": "mixed_float16",
    "loop": "fit",
    "model": "resnet20",
    "dataset": "synthetic",
    "seed": 0,
    "epochs": 1,
    "steps_attempted": 4,
    "steps_applied": 3,
    "validation_accuracy": 0.5,
    "validation_loss": "NaN",
    "train_loss": 2.5,
    "epoch_time_sec": [20.0],
    "step_time_ms": {"median": 1.0, "p95": 2.0, "n": 3},
    "examples_per_sec": 16000.0,
    "device_peak_bytes": None,
    "host_peak_rss_bytes": 1024,
    "loss_scale": {"mode": "dynamic", "initial": 8.0, "final": 4.0, "min": 4.0, "max": 8.0,
                   "skipped": 1, "first_skips": [2]},
    "tf32": False,
    "jit_compile": None,
    "device": "CPU:0 (mine)",
    "versions": {"keras": "3.15.1"},
}  # fmt: skip

SCALE = LossScale(mode="dynamic", initial=16.0, final=8.0, min=8.0, max=64.0, skipped=1)


def test_the_oldest_result_is_read():
    read = RunResult.from_json(OLDEST)
    assert read.computes_in is read.saved is None
    figures = read.figures
    assert figures.first_call_sec is figures.non_finite is figures.optimizers is None
    assert figures.metrics == {}
    assert figures.validation_loss != figures.validation_loss
    assert figures.loss_scale.skipped_non_finite_loss is figures.loss_scale.collapsed_at is None
    assert {name: read.to_json()[name] for name in OLDEST if name != "loss_scale"} == {
        name: value for name, value in OLDEST.items() if name != "loss_scale"
    }


@pytest.mark.parametrize(
    ("smallest", "largest", "stayed"), [(8.0, 64.0, True), (4.0, 64.0, False), (8.0, 128.0, False)]
)
def test_whether_a_scale_stayed_in_its_window(smallest, largest, stayed):
    auto = AutoScale(initial=16.0, window=Window(log2_min=3, log2_max=6, is_open=False))
    scale = dataclasses.replace(SCALE, min=smallest, max=largest).with_auto(auto)
    assert (scale.auto, scale.stayed_in_window) == (auto, stayed)
    assert schema.parsed(LossScale, json.loads(json.dumps(schema.to_json(scale))), "") == scale


def test_without_a_window_nobody_can_have_stayed_in_it():
    scale = SCALE.with_auto(AutoScale(initial=16.0, window=None, why="None was found."))
    assert scale.stayed_in_window is None
    # A run without --loss_scale=auto says nothing of one.
    assert {"auto", "stayed_in_window"}.isdisjoint(schema.to_json(SCALE))


def test_the_oldest_config_is_read():
    oldest = {"schema_version": 1, "config": {"policy": "float16", "seed": 3, "of_before": 7}}
    read = RunConfig.from_json(oldest)
    assert (read.command_line, read.saves, read.versions) == ((), (), {})
    assert read.git_revision is read.trainable_parameters is read.model_sha256 is None
    assert read.as_config() == Config(policy="float16", seed=3)
    assert read.settings()["of_before"] == 7 and read.settings()["momentum"] == 0.9


def test_a_script_need_not_tell_all_of_its_config():
    told = {"policy": "float32", "tf32": False, "loss_scale": "none", "float32_layers": []}
    unknown = {"model": None, "dataset": None, "seed": None, "batch_size": None}
    config = RunConfig(config=told | unknown).as_config()
    assert config.model is config.dataset is config.seed is config.batch_size is None
    for name in told:
        with pytest.raises(RecordError, match=f"config.json has {name}=None"):
            RunConfig(config=told | {name: None}).as_config()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": "0"}, "seed='0' where a whole number belongs"),
        ({"learning_rate": "fast"}, "learning_rate='fast' where a number"),
        ({"float32_layers": "a"}, "float32_layers='a' where a list of texts"),
        ({"jit_compile": 1}, "jit_compile=1 where true or false"),
    ],
)
def test_a_setting_of_another_kind_is_named(changes, expected):
    with pytest.raises(RecordError, match=expected):
        RunConfig(config={"policy": "float32"} | changes).as_config()


def test_a_config_of_every_kind_of_value_comes_back():
    config = Config(float32_layers=("a", "b"), profile_steps=(2, 3), learning_rate=1e-3, seed=5)
    written = RunConfig(config=config.to_json()).to_json()
    assert RunConfig.from_json(written).as_config() == config


def test_whose_a_file_is_and_how_its_run_ended():
    for status in ("completed", "interrupted", "failed"):
        assert result.is_of_a_run({"schema_version": 1, "status": status})
        assert result.status_of({"status": status}) == status
    assert result.is_of_a_run({"written_by": "tfamp"})
    assert not result.is_of_a_run({"status": "completed"})
    for value in ({"status": 1}, {"status": "fine"}, {}, None):
        assert result.status_of(value) is None
    assert run_config.is_of_a_run({"schema_version": 1, "command_line": []})
    assert not run_config.is_of_a_run({"schema_version": 1, "written_by": "me"})


def test_contributing_has_the_tables_of_both_files():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = re.findall(r"\| key \| value \| what \|\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    wanted = ["\n".join(rows) + "\n" for rows in schema.table(RunResult, RunConfig)]
    assert told == wanted, "Put these rows into CONTRIBUTING.md:\n" + "\n".join(wanted)


TODAY = json.loads(json.dumps(Config().to_json()))


def test_a_config_of_today_is_left_as_it_is():
    mine = TODAY | {"stop_on_non_finite": True, "max_skipped_in_a_row": None, "epochs": 3}
    assert RunConfig(config=mine).settings() == mine


def test_a_setting_that_an_older_config_lacks_has_its_default():
    old = {"policy": "float16", "of_another_version": 3}
    assert RunConfig(config=old).settings() == TODAY | old


@pytest.mark.parametrize("bound", [None, 7])
def test_no_bound_on_skips_is_the_default_in_an_older_config(bound):
    found = RunConfig(config={"max_skipped_in_a_row": bound}).settings()
    expected = TODAY["max_skipped_in_a_row"] if bound is None else bound
    assert found["max_skipped_in_a_row"] == expected


def test_files_that_differ():
    there, here = {"a.py": "1", "b.py": "2", "c.py": "3"}, {"a.py": "1", "b.py": "9", "d.py": "4"}
    assert run_config.changed_files(there, here) == {
        "b.py": ("2", "9"),
        "c.py": ("3", None),
        "d.py": (None, "4"),
    }
    assert run_config.changed_files(there, there) == {}
