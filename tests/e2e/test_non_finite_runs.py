"""A run whose numbers broke is no success, and says so where the user looks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from short_runs import ODD
from test_bad_input import SHORT, in_this_process

from tests.marks import slow
from tests.messages import says
from tfamp import train as command
from tfamp.run.result import RunResult
from tfamp.telemetry.non_finite import NonFiniteRun

LOOPS = ("fit", "custom")
UNSCALED = pytest.mark.filterwarnings("ignore:These layers compute in float16:UserWarning")


@pytest.mark.parametrize(
    ("policy", "loop"),
    [
        ("float32", "custom"),
        ("mixed_bfloat16", "fit"),
        slow("float32", "fit"),
        slow("mixed_bfloat16", "custom"),
    ],
)
def test_what_nothing_scales_stops_at_the_read_that_finds_a_broken_weight(policy, loop, train_any):
    done = train_any(model=f"{ODD}:nan_at_step_3", policy=policy, loop=loop, steps_per_epoch=8)
    assert isinstance(done.error, NonFiniteRun)
    # Reads are at every second step.
    assert done.column("step") == [1, 2, 3, 4]
    assert done.result["status"] == "failed"
    assert done.result["non_finite"] == {
        "first_step": 3, "what": "loss", "steps": 2, "weight": "head/kernel",
    }  # fmt: skip
    assert says(done.result["error"], "NonFiniteRun: Step 4", "'head/kernel'", "loss of step 3")


@UNSCALED
@pytest.mark.parametrize(
    "values",
    [
        {"steps_per_execution": 4},
        {"accumulation_steps": 2},
        {"policy": "mixed_float16", "loss_scale": "none"},
    ],
)
def test_however_it_is_executed(values, train_any):
    done = train_any(model=f"{ODD}:nan_at_step_3", steps_per_epoch=8, **values)
    assert isinstance(done.error, NonFiniteRun)
    assert done.column("step")[-1] == 4
    assert done.result["non_finite"]["first_step"] == 3


@pytest.mark.parametrize("loop", LOOPS)
def test_a_scaled_run_skips_one_bad_batch_and_completes(loop, train):
    done = train(model=f"{ODD}:nan_at_step_3", policy="mixed_float16", loop=loop)
    assert done.result["status"] == "completed"
    assert done.result["steps_applied"] == 3
    assert done.result["non_finite"] == {
        "first_step": 3, "what": "loss", "steps": 1, "weight": None,
    }  # fmt: skip
    result = RunResult.from_json(done.result)
    assert says(command.summary(result, "x"), "not finite", "1 steps", "loss of step 3")


def test_a_scale_that_is_being_found_is_no_fault(train):
    done = train(policy="mixed_float16", initial_loss_scale=2.0**24, steps_per_epoch=16)
    assert done.result["loss_scale"]["skipped"] > 0
    assert done.result["status"] == "completed"
    assert done.result["non_finite"] is None


@pytest.mark.parametrize(
    ("policy", "loop"),
    [
        ("float32", "fit"),
        ("mixed_bfloat16", "custom"),
        ("mixed_float16", "custom"),
        slow("float32", "custom"),
        slow("mixed_bfloat16", "fit"),
        slow("mixed_float16", "fit"),
    ],
)
def test_nan_from_the_first_step_fails_under_every_policy(policy, loop, train_any):
    """Told to go on, it does, and still is no success."""
    done = train_any(model=f"{ODD}:always_nan", policy=policy, loop=loop, stop_on_non_finite=False)
    assert done.column("step") == [1, 2, 3, 4]
    assert isinstance(done.error, NonFiniteRun)
    assert done.result["status"] == "failed"
    assert done.result["non_finite"]["first_step"] == 1
    assert done.result["non_finite"]["steps"] == 4
    why = "No step was applied" if policy == "mixed_float16" else "Every loss of the last epoch"
    assert done.result["error"].startswith(f"NonFiniteRun: {why}")


def test_a_run_that_recovers_completes_where_it_may_go_on(train):
    done = train(
        model=f"{ODD}:nan_at_step_3", policy="mixed_float16", stop_on_non_finite=False,
        max_skipped_in_a_row=1,
    )  # fmt: skip
    assert done.result["status"] == "completed"


def test_a_collapse_is_gone_past_where_it_may(train_any):
    values = {"model": f"{ODD}:always_nan", "policy": "mixed_float16", "max_skipped_in_a_row": 1}
    assert train_any(**values).column("step") == [1, 2]
    assert train_any(stop_on_non_finite=False, **values).column("step") == [1, 2, 3, 4]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_command_says_it_while_it_happens_and_exits_with_1(loop, tmp_path, capsys):
    arguments = (f"--model={ODD}:always_nan", f"--loop={loop}", "--log_every=2")
    assert in_this_process(*SHORT, *arguments, f"--logdir={tmp_path}") == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    while_it_happens = ("Step 1: the loss is NaN", "data")
    at_the_end = ("failed", "Step 2", "weight 'head/kernel'", f"{tmp_path}/run.")
    assert says(said, *while_it_happens, *at_the_end)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"


def test_a_healthy_run_reads_no_weight(train, monkeypatch, tmp_path):
    from tfamp.telemetry import non_finite

    monkeypatch.setattr(non_finite, "is_finite", pytest.fail)
    done = train(steps_per_epoch=2, logdir=str(tmp_path), run_name="healthy")
    assert done.result["non_finite"] is None
    assert np.isfinite(done.losses).all()
