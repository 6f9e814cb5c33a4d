"""The config of a step that is looked at: which of the trainer's flags it takes, and from a run."""

from __future__ import annotations

import dataclasses

import pytest

from tests.messages import says
from tests.reporting.made_runs import write_run
from tfamp.run import past_run, step_config
from tfamp.run.config import Config, declarations
from tfamp.run.errors import InputError, as_flag

INSTEAD = {"policy": "precisions", "loss_scale": "log2_scales", "logdir": "out"}


@pytest.fixture
def past(tmp_path):
    """Makes a past run with such settings."""

    def make(**flags):
        folder = write_run(tmp_path, **flags)
        (folder / "final.weights.h5").touch()
        return past_run.read(folder)

    return make


def test_each_flag_of_the_trainers_is_taken_or_refused_with_a_reason():
    refused = step_config.refused(INSTEAD)
    taken = step_config.options()
    assert set(taken) == set(step_config.names())
    assert set(taken) | set(refused) == set(declarations())
    assert not set(taken) & set(refused)
    assert {"model", "batch_size", "float32_layers", "seed"} <= set(taken)
    assert "--precisions" in refused["policy"]
    for name in ("loss_scale", "initial_loss_scale", "max_skipped_in_a_row"):
        assert "--log2_scales" in refused[name]
    for name in ("logdir", "run_name", "save_model"):
        assert "--out" in refused[name]
    assert says(refused["epochs"], "nothing is trained")


def test_without_a_run_it_is_what_was_asked_for():
    made = step_config.make({"model": "vit_tiny", "batch_size": 8, "seed": 3}, None)
    config = made.config
    assert (config.model, config.batch_size, config.seed) == ("vit_tiny", 8, 3)
    # XLA may keep excess precision: not unless asked for.
    assert (config.policy, config.jit_compile) == ("mixed_float16", False)
    assert says("\n".join(made.said), "mixed_float16")
    assert step_config.make({"jit_compile": True}, None).config.jit_compile is True


@pytest.mark.parametrize(
    ("policy", "built_under"),
    [
        ("float32", "mixed_float16"),
        ("float16", "mixed_float16"),
        ("bfloat16", "mixed_bfloat16"),
        ("mixed_float16", "mixed_float16"),
        ("mixed_bfloat16", "mixed_bfloat16"),
    ],
)
def test_a_run_is_built_under_a_mixed_policy(policy, built_under, past):
    made = step_config.make({}, past(policy=policy, jit_compile=False))
    assert made.config.policy == built_under
    is_told = says("\n".join(made.said), policy, built_under)
    assert is_told is (policy != built_under)


def test_what_a_run_had_is_taken_and_what_has_no_bearing_is_not(past):
    values = {
        "policy": "mixed_float16", "model": "vit_tiny", "batch_size": 8, "seed": 5, "epochs": 7,
        "float32_layers": ("head",), "label_smoothing": 0.25, "augment": "flip_crop",
        "loss_scale": "1024", "accumulation_steps": 4, "steps_per_execution": 2, "loop": "custom",
    }  # fmt: skip
    run = past(**values)
    made = step_config.make({}, run)
    config, plain = made.config, Config()
    for name in step_config.names():
        if name != "jit_compile":
            assert getattr(config, name) == getattr(run.config, name), name
    for name in ("epochs", "loss_scale", "accumulation_steps", "steps_per_execution", "loop"):
        assert getattr(config, name) == getattr(plain, name), name
    assert run.config.jit_compile is True and config.jit_compile is False
    assert says("\n".join(made.said), "XLA", "--jit_compile")


def test_what_may_be_set_anew_beside_a_run_is_told(past):
    run = past(policy="mixed_float16", batch_size=8, jit_compile=False)
    asked = {"batch_size": 16, "float32_layers": ("a", "b"), "seed": 0, "jit_compile": True}
    made = step_config.make(asked, run)
    assert (made.config.batch_size, made.config.float32_layers) == (16, ("a", "b"))
    assert made.config.jit_compile is True
    # The run's own seed is nothing new.
    smaller, forced = made.said
    assert says(smaller, "--batch_size=16", "--batch_size=8")
    assert says(forced, "--float32_layers=a,b")


@pytest.mark.parametrize(
    ("name", "value"), [("model", "resnet18"), ("dataset", "synthetic"), ("image_size", 64)]
)
def test_what_the_weights_are_of_cannot_be_set_anew(name, value, past):
    run = past(model="resnet20", image_size=32)
    with pytest.raises(InputError) as raised:
        step_config.make({name: value}, run)
    told = raised.value.told(as_flag)
    known = getattr(run.config, name)
    assert says(told, f"--{name}={value}", f"--run={run.path}", f"--{name}={known}", f"--{name}")
    assert step_config.make({name: known}, run).said == step_config.make({}, run).said


def test_every_setting_that_a_run_fixes_is_one_of_the_step():
    assert set(step_config._OF_THE_WEIGHTS) <= set(step_config.names())


def test_what_is_not_allowed_is_refused_as_the_trainer_does():
    with pytest.raises(InputError) as raised:
        step_config.make({"batch_size": 0}, None)
    assert says(raised.value.told(as_flag), "--batch_size=0", 1)
    assert dataclasses.is_dataclass(step_config.make({}, None))
