"""What a run is called is what it does, or the run says otherwise."""

from __future__ import annotations

import pytest
from short_runs import ODD, TINY

from tests.conftest import POLICIES
from tests.messages import naming, says
from tfamp.precision import computes
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.errors import InputError
from tfamp.run.resolve import resolve
from tfamp.run.result import ComputesIn
from tfamp.telemetry import memory
from tfamp.training import trainer


def lines_of(tmp_path, **values):
    said = []
    common = {"model": TINY, "epochs": 1, "steps_per_epoch": 2, "batch_size": 50,
              "jit_compile": False, "save_model": False, "logdir": str(tmp_path)}  # fmt: skip
    trainer.train(resolve(Config(**(common | values))), say=said.append)
    return "\n".join(said)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_computes_in_16_bits_is_counted_in_both_files(policy, train):
    done = train(policy=policy)
    name = policy.removeprefix("mixed_")
    # conv1 and conv2; norm1 and head compute in float32 in every policy.
    parameters = 8 * 9 + (8 * 9 + 1) * 16
    in_16_bits = (0, 0) if name == "float32" else (2, parameters)
    assert done.config["computes_in"] == {
        "dtype": name,
        "layers": in_16_bits[0],
        "of_layers": 4,
        "parameters": in_16_bits[1],
        "of_parameters": parameters + 2 * 8 + 17 * 10,
    }
    assert done.result["computes_in"] == done.config["computes_in"]


@pytest.mark.parametrize(
    "values", [{"model": f"{ODD}:all_float32"}, {"float32_layers": (".",), "run_name": "forced"}]
)
def test_a_policy_that_nothing_computes_in_is_told(values, tmp_path):
    said = lines_of(tmp_path, policy="mixed_float16", **values)
    assert says(said, "policy is mixed_float16", "no layer", "float16", "All", "float32")


def test_the_start_line_says_how_much_and_what_a_pattern_changed(tmp_path):
    said = lines_of(tmp_path, policy="mixed_float16", float32_layers=("conv2", "norm|head"))
    assert says(said, "1 of 4 layers", "float16", "5.0 %")
    assert says(said, "float32_layers 'conv2'", "moved", "conv2\n")
    assert says(said, "float32_layers 'norm|head'", "nothing", "anyway", "norm1, head")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"accumulation_steps": 3}, ("accumulation_steps=3", "2 steps")),
        (
            {"steps_per_epoch": 20, "steps_per_execution": 7},
            ("steps_per_epoch=20", "steps_per_execution=7", "steps_per_epoch=14", 21),
        ),
    ],
)
def test_steps_that_do_not_fit_are_refused(values, expected, tmp_path):
    with pytest.raises(InputError, match=naming(*expected)):
        lines_of(tmp_path, **values)
    assert not list(tmp_path.iterdir())


def test_steps_that_are_left_over_are_told(tmp_path):
    said = lines_of(
        tmp_path, model=f"{ODD}:linear", dataset="synthetic", num_examples=350,
        steps_per_epoch=None, steps_per_execution=3, accumulation_steps=4, image_size=8,
    )  # fmt: skip
    assert says(said, "7 batches", 6, "--steps_per_execution=3")
    assert says(said, "last 2 steps", "no weight")


def test_a_device_without_memory_counts_has_no_figures_of_it(train, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda device: (0, 0))
    done = train(steps_per_epoch=1, logdir=str(tmp_path), run_name="run")
    assert not {records.DEVICE_PEAK, records.DEVICE_CURRENT} & set(done.epochs[0])
    assert done.result["device_peak_bytes"] is None


def test_several_16_bit_types_are_all_named():
    counted = ComputesIn(
        dtype="bfloat16+float16", layers=2, of_layers=2, parameters=1, of_parameters=1
    )
    assert computes.in_words(counted, "float32").startswith("2 of 2 layers")
