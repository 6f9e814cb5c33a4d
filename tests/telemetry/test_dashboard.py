from __future__ import annotations

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from tensorboard.util import tensor_util

from tfamp.run import records
from tfamp.telemetry import tensorboard as dashboard


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def series(events, tag):
    """Steps and values of one tag."""
    return [
        (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
        for event in events.Tensors(tag)
    ]


def test_numbers_become_scalars_and_nothing_else_does(tmp_path):
    writer = dashboard.ScalarWriter(tmp_path / "run" / "train")
    writer.write(1, {"train/loss": 2.5, "scale/skipped_total": 3, "event": "note", "none": None})
    writer.write(2, {"train/loss": 1.25})
    writer.write(3, {"event": "only words"})
    writer.close()
    events = read(tmp_path / "run" / "train")
    assert sorted(events.Tags()["tensors"]) == ["scale/skipped_total", "train/loss"]
    assert series(events, "train/loss") == [(1, 2.5), (2, 1.25)]
    assert series(events, "scale/skipped_total") == [(1, 3.0)]
    plugin = events.SummaryMetadata("train/loss").plugin_data.plugin_name
    assert plugin == "scalars"


def test_numbers_that_are_not_finite_are_written_as_they_are(tmp_path):
    writer = dashboard.ScalarWriter(tmp_path)
    writer.write(1, {"train/loss": math.nan, "grad/global_norm": math.inf})
    writer.close()
    events = read(tmp_path)
    assert math.isnan(series(events, "train/loss")[0][1])
    assert series(events, "grad/global_norm") == [(1, math.inf)]


def test_a_flush_makes_events_readable(tmp_path):
    writer = dashboard.ScalarWriter(tmp_path)
    writer.write(7, {"train/loss": 0.5})
    writer.flush()
    assert series(read(tmp_path), "train/loss") == [(7, 0.5)]
    writer.close()


@pytest.fixture
def summaries(tmp_path):
    writer = dashboard.ScalarWriter(tmp_path)
    writer.write_summary(dashboard.layout())
    writer.write_summary(dashboard.experiment())
    hparams = {"policy": "mixed_float16", "loss_scale": "1024", "model": "vit_tiny",
               "dataset": "cifar10", "loop": "fit", "learning_rate": 0.05, "batch_size": 32,
               "seed": 3}  # fmt: skip
    writer.write_summary(dashboard.session_start(hparams, "my_run"))
    writer.close()
    return read(tmp_path)


def test_the_layout_opens_on_what_matters(summaries):
    (event,) = summaries.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {
        category.title: {chart.title: list(chart.multiline.tag) for chart in category.chart}
        for category in layout.category
    }
    assert charts == {
        "Did it learn": {
            "Accuracy": ["^validation/accuracy(/.+)?$", "^train/accuracy(/.+)?$"],
            "Loss": ["^validation/loss(/.+)?$", "^train/loss(/.+)?$"],
        },
        "What loss scaling did": {
            "Loss scale, as a power of two (log2)": ["^scale/log2(/.+)?$"],
            "Skipped steps": [
                "^scale/skipped_total(/.+)?$",
                "^scale/skipped_non_finite_loss(/.+)?$",
            ],
            "Gradient norm, unscaled": ["^grad/global_norm(/.+)?$"],
            "Share of zero gradients": ["^grad/zero_fraction(/.+)?$"],
            "Share of gradient entries that float16 loses": ["^underflow/lost_fraction(/.+)?$"],
        },
        "What it cost": {
            "Step time (ms)": ["^time/step_ms(/.+)?$"],
            "Device memory peak (bytes)": ["^memory/device_peak_bytes(/.+)?$"],
            "Examples per second": ["^throughput/examples_per_sec(/.+)?$"],
        },
    }


def test_the_experiment_compares_choices_by_accuracy_time_and_memory(summaries):
    content = summaries.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    assert [info.name for info in experiment.hparam_infos] == [
        "policy", "model", "dataset", "loop", "batch_size", "seed", "learning_rate", "loss_scale",
    ]  # fmt: skip
    assert [(info.name.group, info.name.tag) for info in experiment.metric_infos] == [
        ("", dashboard.HPARAMS_ACCURACY),
        ("", records.STEP_TIME),
        ("", records.DEVICE_PEAK),
    ]


def test_the_session_has_the_runs_choices(summaries):
    content = summaries.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    session = metadata.parse_session_start_info_plugin_data(content)
    assert session.hparams["policy"].string_value == "mixed_float16"
    assert session.hparams["loss_scale"].string_value == "1024"
    assert session.hparams["model"].string_value == "vit_tiny"
    assert session.hparams["dataset"].string_value == "cifar10"
    assert session.hparams["loop"].string_value == "fit"
    assert session.hparams["learning_rate"].number_value == 0.05
    assert session.hparams["batch_size"].number_value == 32
    assert session.hparams["seed"].number_value == 3
    assert session.group_name == "my_run"


def test_a_run_has_two_folders_and_no_event_file_above_them(tmp_path):
    events = dashboard.RunEvents(tmp_path / "run", {"policy": "float32"})
    events.write_step(1, {"train/loss": 2.0})
    events.write_epoch(1, {"train/loss": 2.0, "validation/accuracy": 0.5, "time/epoch_sec": 3.0})
    events.close()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["train", "validation"]
    train, validation = (read(tmp_path / "run" / name) for name in ("train", "validation"))
    assert series(validation, "validation/accuracy") == [(1, 0.5)]
    assert series(train, "train/loss") == [(1, 2.0)]
    assert series(train, "time/epoch_sec") == [(1, 3.0)]
    assert series(train, dashboard.HPARAMS_ACCURACY) == [(1, 0.5)]
    # One file each: TensorBoard leaves a file for good when a later one begins.
    assert [len(list((tmp_path / "run" / name).iterdir())) for name in ("train", "validation")] == [
        1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "logarithm"),
    [(2.0**15, [15.0]), (2.0**-14, [-14.0]), (1000.0, [math.log2(1000)]), (0.0, []),
     (math.inf, []), (math.nan, [])],
)  # fmt: skip
def test_the_loss_scale_is_there_as_a_power_of_two_too(scale, logarithm, tmp_path):
    events = dashboard.RunEvents(tmp_path)
    events.write_step(1, {"scale/value": scale})
    events.write_step(2, {"train/loss": 1.0})
    events.close()
    train = read(tmp_path / "train")
    tags = train.Tags()["tensors"]
    found = [v for _, v in series(train, "scale/log2")] if "scale/log2" in tags else []
    assert found == pytest.approx(logarithm)
