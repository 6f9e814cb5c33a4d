"""What the rows say of the gradients."""

import json
import math

import pytest
from made_runs import rewrite, write_run

from tfamp.reporting import gradient_summary, runs
from tfamp.run import records


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


def test_a_loss_that_did_not_fall_is_no_training_and_one_that_is_not_known_neither(tmp_path):
    folder = write_run(tmp_path, policy="mixed_float16", loss_scale="none")
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rewrite(folder / "result.json", train_loss=rows[0][records.TRAIN_LOSS])
    summary = gradient_summary.summarise_gradients(read(folder))
    assert summary.last_loss == summary.first_loss and summary.has_trained is False
    for row in rows:
        row.pop(records.TRAIN_LOSS, None)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = gradient_summary.summarise_gradients(read(folder))
    assert summary.first_loss is None and summary.has_trained is False
