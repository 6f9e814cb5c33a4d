"""A fidelity in a run's TensorBoard, as TensorBoard's own reader finds it."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from tests.reporting import made_fidelity
from tfamp.diagnosis import fidelity_events
from tfamp.reporting import exponents
from tfamp.reporting.pages import fidelity_page
from tfamp.telemetry.tensorboard import RunEvents


@pytest.fixture
def run_directory(tmp_path):
    events = RunEvents(tmp_path / "run", {"policy": "mixed_float16"})
    for step in (1, 40):
        events.write_step(step, {"train/loss": 3.0 - step / 40})
    events.close()
    return tmp_path / "run"


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def values(events, tag):
    return [
        (event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)
    ]


def test_pictures_histograms_and_text_are_in_the_runs_tensorboard(run_directory, tmp_path):
    fidelity = made_fidelity.healthy()
    files = fidelity_page.write(fidelity, tmp_path / "out")
    before = read(run_directory / "train")
    others = {tag: values(before, tag) for tag in before.Tags()["tensors"]}
    assert [step for step, _ in others["train/loss"]] == [1, 40]
    for _ in range(2):
        path = fidelity_events.write(fidelity, files, run_directory, step=40)
        assert path.parent == run_directory / "train" and path.name.endswith(".fidelity.tfamp")
        events = read(run_directory / "train")
        found = {tag: values(events, tag) for tag in events.Tags()["tensors"]}
        for tag, was in others.items():
            assert str(found.pop(tag)) == str(was), tag
        pictures = {f"fidelity/{path.stem}": path for path in files if path.suffix == ".png"}
        histograms = {
            "fidelity/log2_size_of_activation_gradients": [
                layer.activation_exponents for layer in fidelity.layers
            ],
            "fidelity/log2_size_of_weight_gradients": [
                layer.weight_exponents for layer in fidelity.layers
            ],
        }
        assert sorted(found) == sorted([*pictures, *histograms, "fidelity/summary"])
        # Once each: what the first wrote does not stand beside what the second did.
        assert {tag: [step for step, _ in was] for tag, was in found.items()} == {
            tag: [40] for tag in found
        }
        plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in found}
        for tag, picture in pictures.items():
            assert plugins[tag] == "images"
            assert found[tag][0][1][2] == picture.read_bytes()
        for tag, each in histograms.items():
            assert plugins[tag] == "histograms"
            total = exponents.total(each)
            left, right, counts = found[tag][0][1].T
            assert left[0] == total.first and (right - left == 1).all()
            assert counts.tolist() == list(total.counts)
            assert f"{total.zeros:,} " in events.SummaryMetadata(tag).summary_description
        assert plugins["fidelity/summary"] == "text"
        text = found["fidelity/summary"][0][1].item().decode()
        assert fidelity.advice.summary in text and fidelity.limits[0] in text
    assert len(list((run_directory / "train").iterdir())) == 2


def test_a_picture_that_cannot_be_read_leaves_the_earlier_fidelity(run_directory, tmp_path):
    fidelity = made_fidelity.one_layer()
    path = fidelity_events.write(fidelity, (), run_directory)
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        fidelity_events.write(fidelity, [tmp_path / "absent.png"], run_directory)
    assert path.read_bytes() == before
    assert len(list((run_directory / "train").iterdir())) == 2


def test_names_are_text_and_no_markup(run_directory):
    fidelity_events.write(made_fidelity.hostile(), (), run_directory)
    ((_, found),) = values(read(run_directory / "train"), "fidelity/summary")
    assert "<script" not in found.item().decode()
