"""What TensorBoard serves of two real runs, asked over HTTP as its pages ask."""

from __future__ import annotations

import hashlib
import math
import pathlib
from collections import defaultdict

import pytest
from short_runs import SHORT, run_once
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from tensorboard_server import serve, session_groups, wait_until_loaded

from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.resolve import resolve
from tfamp.run.run_config import RunConfig
from tfamp.telemetry import tensorboard as dashboard

LOOPS = ("fit", "custom")

TRAIN_TAGS = {
    "train/loss",
    "train/accuracy",
    "optimizer/learning_rate",
    "scale/value",
    "scale/growth_counter",
    "scale/skipped_total",
    "scale/skipped_in_a_row",
    "scale/skipped_non_finite_loss",
    "grad/global_norm",
    "grad/zero_fraction",
    "grad/non_finite_fraction",
    "time/step_ms",
    "time/epoch_sec",
    "throughput/examples_per_sec",
    "memory/device_peak_bytes",
    "memory/device_current_bytes",
    "memory/host_peak_rss_bytes",
}
VALIDATION_TAGS = {"validation/loss", "validation/accuracy"}
# Beside the rows' names, in TensorBoard only.
OWN_TAGS = {"scale/log2", "hparams/validation_accuracy"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of each loop in one logdir; the first two steps or so are skipped."""
    logdir = tmp_path_factory.mktemp("logdir")
    outcomes = {}
    # A run that was killed, whose place the first one takes.
    killed = RunDirectory(logdir / "run_fit")
    for folder in (killed.path, killed.path / "train"):
        writer = dashboard.ScalarWriter(folder)
        writer.write(1, {"train/loss": 1e9})
        writer.close()
    killed.write_config(RunConfig(config={}))
    for loop in LOOPS:
        values = {
            "policy": "mixed_float16",
            "initial_loss_scale": 2.0**24,
            "loop": loop,
            "epochs": 2,
            "seed": 5,
            "logdir": str(logdir),
            "run_name": f"run_{loop}",
        }
        outcomes[loop] = run_once(resolve(Config(**(SHORT | values))))
        assert outcomes[loop].error is None
    return outcomes


@pytest.fixture(scope="module")
def ask(runs):
    """Starts TensorBoard; returns a function that asks one of its pages."""
    with serve(runs["fit"].path.parent) as get:
        wait_until_loaded(get, [run.path.name for run in runs.values()], last_step=8)
        yield get


def rows_by_tag(run, with_own=True):
    """(step, value) of each tag; for train/ figures the step rows, as the epoch's are means."""
    series = defaultdict(list)
    for row in run.rows:
        for name, value in row.items():
            if "/" in name and not (row["kind"] == "epoch" and name.startswith("train/")):
                series[name].append((row["step"], value))
    if with_own:
        series[records.SCALE.log2_tag] = [
            (n, math.log2(scale)) for n, scale in series[records.SCALE]
        ]
        series[dashboard.HPARAMS_ACCURACY] = series[records.VALIDATION_ACCURACY]
    return series


def same(served, written):
    assert [step for step, _ in served] == [step for step, _ in written]
    for (_, mine), (_, other) in zip(served, written, strict=True):
        mine = float(mine)  # JSON has no inf: TensorBoard sends a word
        assert mine == pytest.approx(other, rel=1e-6) or (math.isnan(mine) and math.isnan(other))


@pytest.mark.parametrize("loop", LOOPS)
def test_event_files_hold_the_names_of_the_rows_and_their_values(loop, runs):
    expected = rows_by_tag(runs[loop])
    found = {}
    for folder in ("train", "validation"):
        events = EventAccumulator(str(runs[loop].path / folder), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.PluginTagToContent("scalars"):
            assert tag not in found
            found[tag] = [
                (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
                for event in events.Tensors(tag)
            ]
    assert set(found) == set(expected) == TRAIN_TAGS | VALIDATION_TAGS | OWN_TAGS
    for tag, series in found.items():
        same(series, expected[tag])


def test_the_rows_have_nothing_that_is_tensorboards_alone(runs):
    for run in runs.values():
        assert set(rows_by_tag(run, with_own=False)) == TRAIN_TAGS | VALIDATION_TAGS


def test_events_of_a_run_that_another_took_the_place_of_are_there_and_not_shown(ask, runs):
    (replaced,) = runs["fit"].path.glob("replaced-*")
    names = [path.name for path in replaced.rglob("*") if path.is_file()]
    assert len(names) == 3 and "config.json" in names
    assert not any("replaced" in run for run in ask("scalars/tags"))


def test_the_content_of_the_users_model_is_recorded(runs):
    for run in runs.values():
        name, _, _ = run.result["model"].rpartition(":")
        content = hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()
        assert run.config["model_sha256"] == {pathlib.Path(name).name: content}
        assert run.config["trainable_parameters"] == 1426


def test_tags_and_runs(ask, runs):
    tags = {run: set(found) for run, found in ask("scalars/tags").items()}
    for loop in LOOPS:
        assert tags[f"run_{loop}/train"] == TRAIN_TAGS | OWN_TAGS
        assert tags[f"run_{loop}/validation"] == VALIDATION_TAGS
    # Nothing is listed that has no chart.
    assert sorted(tags) == [
        "run_custom/train",
        "run_custom/validation",
        "run_fit/train",
        "run_fit/validation",
    ]


@pytest.mark.parametrize("loop", LOOPS)
def test_values_are_those_of_the_rows(loop, ask, runs):
    expected = rows_by_tag(runs[loop])
    assert len(expected[records.TRAIN_LOSS]) == 8
    assert expected[records.SCALE][0] == (1, 2.0**24)
    assert expected[records.SKIPPED_TOTAL][-1][1] >= 1
    non_finite = [share for _, share in expected[records.GRADIENT_NON_FINITE]]
    assert len(non_finite) == 8 and non_finite[0] > 0.0 == non_finite[-1]
    for tag in sorted(TRAIN_TAGS | VALIDATION_TAGS | OWN_TAGS):
        folder = "validation" if tag in VALIDATION_TAGS else "train"
        served = ask("scalars/scalars", run=f"run_{loop}/{folder}", tag=tag)
        same([(step, value) for _, step, value in served], expected[tag])


METRICS = {
    ("", "hparams/validation_accuracy"),
    ("", "time/step_ms"),
    ("", "memory/device_peak_bytes"),
}


def test_the_hparams_tab_compares_the_runs(ask, runs):
    experiment = ask("hparams/experiment", {"experimentName": ""})
    # The tab shows five of them until others are ticked, the first in this order.
    assert [info["name"] for info in experiment["hparamInfos"]] == [
        "batch_size", "learning_rate", "loss_scale", "model", "policy", "dataset", "loop", "seed",
    ]  # fmt: skip
    metrics = {(info["name"]["group"], info["name"]["tag"]) for info in experiment["metricInfos"]}
    assert metrics == METRICS


def test_hparams_sessions_have_values(ask, runs):
    groups = session_groups(ask)
    assert len(groups) == 2
    by_loop = {group["hparams"]["loop"]: group for group in groups}
    for loop, run in runs.items():
        group = by_loop[loop]
        assert group["hparams"] == {
            "policy": "mixed_float16",
            "loss_scale": "dynamic",
            "dataset": "fashion_mnist_mini",
            "model": run.result["model"],
            "loop": loop,
            "learning_rate": 0.1,
            "batch_size": 50,
            "seed": 5,
        }
        values = {
            (value["name"]["group"], value["name"]["tag"]): value["value"]
            for value in group["metricValues"]
        }
        assert set(values) == METRICS
        series = rows_by_tag(run)
        for (_, tag), value in values.items():
            assert value == pytest.approx(series[tag][-1][1], rel=1e-6)


def test_the_custom_scalars_tab_has_the_layout(ask, runs):
    layout = ask("custom_scalars/layout")
    charts = {
        category["title"]: [chart["title"] for chart in category["chart"]]
        for category in layout["category"]
    }
    assert charts == {
        "Did it learn": ["Accuracy", "Loss"],
        "What loss scaling did": [
            "Loss scale, as a power of two (log2)", "Skipped steps", "Gradient norm, unscaled",
            "Share of zero gradients", "Share of gradient entries that float16 loses",
        ],
        "What it cost": ["Step time (ms)", "Device memory peak (bytes)", "Examples per second"],
    }  # fmt: skip
    # And each chart finds its tags.
    for category in layout["category"]:
        for chart in category["chart"]:
            for pattern in chart["multiline"]["tag"]:
                for loop in LOOPS:
                    folder = "validation" if pattern.startswith("^validation") else "train"
                    answer = ask("custom_scalars/scalars", run=f"run_{loop}/{folder}", tag=pattern)
                    assert answer["regex_valid"], pattern
                    points = sum(len(x) for x in answer["tag_to_events"].values())
                    if records.UNDERFLOW in pattern:
                        # These runs have no meter: tests/telemetry/test_underflow_rows.py has one.
                        assert points == 0, pattern
                    else:
                        assert points >= 2, pattern
