"""config.json and result.json of real runs: their keys, and their values against the rows.

The keys are a contract with tools and with older runs: they are written out here, once more, so
that renaming one in its declaration fails.
"""

from __future__ import annotations

import json

import pytest

from tests.reporting import made_runs
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.result import ComputesIn, RunResult
from tfamp.run.run_config import RunConfig

CONFIG = {
    "written_by", "schema_version", "config", "asked", "command_line", "saves", "versions",
    "git_revision", "device", "tf32", "trainable_parameters", "model_sha256", "computes_in",
    "forced_float32_layers", "float32_layers_effect",
}  # fmt: skip
OUTCOME = {
    "written_by", "schema_version", "status", "error", "policy", "loop", "model", "dataset", "seed",
    "tf32", "jit_compile", "device", "versions",
}  # fmt: skip
BUILT = {"computes_in", "saved"}
FIGURES = {
    "epochs", "steps_attempted", "steps_applied", "validation_accuracy", "validation_loss",
    "train_loss", "epoch_time_sec", "first_call_sec", "step_time_ms", "examples_per_sec",
    "device_peak_bytes", "host_peak_rss_bytes", "loss_scale", "non_finite", "metrics",
}  # fmt: skip
NESTED = {
    "step_time_ms": {"median", "p95", "n"},
    "loss_scale": {"mode", "initial", "final", "min", "max", "skipped", "skipped_non_finite_loss",
                   "collapsed_at", "first_skips"},
    "saved": {"weights", "are_averages", "why_no_weights", "model", "why_no_model", "best",
              "best_epoch", "best_validation_accuracy", "why_no_best"},
    "computes_in": {"dtype", "layers", "of_layers", "parameters", "of_parameters"},
}  # fmt: skip


@pytest.fixture
def moved(train):
    """A float16 run whose scale begins, ends and turns at four different numbers."""
    return train(
        policy="mixed_float16",
        epochs=2,
        steps_per_epoch=5,
        float32_layers=("conv1",),
        initial_loss_scale=2.0**20,
        loss_scale_growth_steps=1,
        loss_scale_growth_factor=4.0,
        loss_scale_backoff_factor=2.0**-5,
        loss_scale_recovery_steps=None,
    )


def test_the_keys_of_both_files(moved):
    assert set(moved.config) == CONFIG
    assert set(moved.result) == OUTCOME | BUILT | FIGURES
    for name, keys in NESTED.items():
        assert set(moved.result[name]) == keys, name
    assert set(moved.config["computes_in"]) == NESTED["computes_in"]
    assert set(moved.config["float32_layers_effect"]["conv1"]) == {"changed", "float32_anyway"}


def test_the_figures_are_those_of_the_rows(moved):
    result, steps, epochs = moved.result, moved.steps, moved.epochs
    assert (result["epochs"], result["steps_attempted"]) == (2, len(steps)) == (2, 10)
    assert result["steps_applied"] == 10 - steps[-1][records.SKIPPED_TOTAL]
    last = epochs[-1]
    assert result["validation_accuracy"] == last[records.VALIDATION_ACCURACY]
    assert result["validation_loss"] == last[records.VALIDATION_LOSS]
    assert result["train_loss"] == last[records.TRAIN_LOSS]
    metrics = ("loss", "accuracy")
    expected = {f"{room}/{name}" for room in ("train", "validation") for name in metrics}
    assert result["metrics"] == {name: last[name] for name in expected}
    assert result["epoch_time_sec"] == [row[records.EPOCH_TIME] for row in epochs]
    assert 0 < result["first_call_sec"] < result["epoch_time_sec"][0]
    windows = [time for time in moved.column(records.STEP_TIME) if time is not None]
    assert result["step_time_ms"]["n"] == 9
    assert min(windows) <= result["step_time_ms"]["median"] <= result["step_time_ms"]["p95"]
    assert result["step_time_ms"]["p95"] == max(windows)
    assert result["step_time_ms"]["median"] in windows
    assert result["examples_per_sec"] == pytest.approx(5e4 / result["step_time_ms"]["median"])
    assert result["device_peak_bytes"] == max(row[records.DEVICE_PEAK] for row in epochs)
    assert result["host_peak_rss_bytes"] >= last[records.HOST_PEAK]
    assert result["non_finite"] is None


def test_the_loss_scale_is_that_of_the_rows(moved):
    scale, scales = moved.result["loss_scale"], moved.column(records.SCALE)
    totals = moved.column(records.SKIPPED_TOTAL)
    skips = [step for step, old in enumerate([0, *totals[:-1]], 1) if totals[step - 1] > old]
    assert scale == {
        "mode": "dynamic",
        "initial": 2.0**20,
        "final": scale["final"],
        "min": min(*scales, scale["final"]),
        "max": max(*scales, scale["final"]),
        "skipped": totals[-1],
        "skipped_non_finite_loss": 0,
        "collapsed_at": None,
        "first_skips": skips,
    }
    assert scales[0] == scale["initial"] and skips
    # The last step moved the scale too: each step does.
    was_skipped = moved.column(records.SKIPPED_IN_A_ROW)[-1] > 0
    assert scale["final"] == min(2.0**24, scales[-1] * (2.0**-5 if was_skipped else 4.0))
    assert len({scale[name] for name in ("initial", "final", "min", "max")}) == 4


def test_what_was_run_is_told_in_both_files(moved):
    config, result = moved.config, moved.result
    settings = config["config"]
    for name in ("policy", "loop", "model", "dataset", "seed", "jit_compile"):
        assert result[name] == settings[name], name
    for name in ("device", "tf32", "versions", "computes_in"):
        assert result[name] == config[name], name
    assert config["command_line"] == ["train"]
    assert config["asked"] == {"epochs": 2}
    # What was decided, beside it.
    assert (settings["optimizer"], settings["learning_rate"]) == ("sgd", 0.1)
    assert isinstance(settings["jit_compile"], bool)
    assert (result["status"], result["error"], config["saves"]) == ("completed", None, [])
    assert config["forced_float32_layers"] == ["conv1"]
    assert config["float32_layers_effect"] == {
        "conv1": {"changed": ["conv1"], "float32_anyway": []}
    }


def test_what_is_written_is_read_and_nothing_is_lost(moved):
    for kind, name in ((RunConfig, "config.json"), (RunResult, "result.json")):
        read = kind.read(moved.path / name)
        assert read.to_json() == json.loads((moved.path / name).read_text()), name
    config = RunConfig.read(moved.path / "config.json").as_config()
    assert isinstance(config, Config) and config.float32_layers == ("conv1",)
    assert (config.steps_per_epoch, config.loss_scale_recovery_steps) == (5, None)


def test_a_run_that_a_test_makes_has_the_keys_of_a_real_one(moved, tmp_path):
    made = made_runs.write_run(
        tmp_path,
        policy="mixed_float16",
        zero_fraction=0.1,
        skips=(3,),
        computes_in=ComputesIn(
            dtype="float16", layers=1, of_layers=2, parameters=3, of_parameters=4
        ),
    )
    for file, real in (("config.json", moved.config), ("result.json", moved.result)):
        written = json.loads((made / file).read_text())
        assert set(written) == set(real), file
        for name, value in real.items():
            if name in NESTED:
                assert set(written[name]) == set(value), name
    for kind in ("step", "epoch"):
        names = [
            {name for row in rows if row["kind"] == kind for name in row}
            for rows in (records.read_rows(made / "metrics.jsonl"), moved.rows)
        ]
        assert names[0] == names[1], kind
    assert {row["kind"] for row in moved.rows} == {"step", "epoch"}
