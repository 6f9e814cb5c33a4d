"""What the rows say of the gradients."""

import math

import pytest
from made_runs import write_run

from tfamp.reporting import gradient_summary, runs


def read(folder):
    return runs.read(folder, folder.name)


def test_an_unscaled_run_that_broke(tmp_path):
    run = read(
        write_run(
            tmp_path,
            policy="mixed_float16",
            loss_scale="none",
            non_finite_steps=tuple(range(10, 61)),
            zero_fraction=0.25,
        )
    )
    summary = gradient_summary.summarise_gradients(run)
    assert summary.has_trained is False
    assert math.isnan(summary.last_loss)
    assert (summary.non_finite_steps, summary.first_non_finite_step, summary.steps) == (51, 10, 60)
    assert summary.zero_share == 0.25
    assert summary.non_finite_share == pytest.approx(51 / 60)


def test_an_unscaled_run_that_trained(tmp_path):
    summary = gradient_summary.summarise_gradients(
        read(write_run(tmp_path, policy="mixed_float16", loss_scale="none"))
    )
    assert summary.has_trained is True
    assert summary.first_loss == pytest.approx(2.3 * math.exp(-2 / 60) + 0.1)
    assert summary.last_loss == pytest.approx(2.3 * math.exp(-2) + 0.1)
    assert summary.non_finite_steps == 0 and summary.first_non_finite_step is None
    assert summary.zero_share is None, "rows without the count give none"


def test_a_run_without_float16_has_none(tmp_path):
    assert (
        gradient_summary.summarise_gradients(read(write_run(tmp_path, policy="mixed_bfloat16")))
        is None
    )
