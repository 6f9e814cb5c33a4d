"""What is drawn over steps: where a step lies in time, and what is averaged."""

from __future__ import annotations

import pytest
from drawn_groups import without

from tests.reporting.made_runs import LOG_EVERY, write_run
from tfamp.reporting import runs
from tfamp.reporting.figures import series
from tfamp.run import records


def test_the_clock_leaves_compiling_out(three_seeds):
    (run, *_) = three_seeds.baseline.runs
    steps, seconds = series.training_clock(run)
    assert steps.tolist() == [0, *range(LOG_EVERY, 61, LOG_EVERY)]
    # Windows of 100, 110 and 90 ms in turns; epoch 0 has 20 s of compiling more in its row.
    assert seconds[[0, 1, 2, 3]] == pytest.approx([0.0, 0.5, 1.05, 1.5])
    assert seconds[-1] == pytest.approx(6.0)


def test_an_epoch_without_windows_takes_its_own_time(tmp_path):
    without(write_run(tmp_path, policy="float32", step_ms=100.0), records.STEP_TIME)
    (run,) = runs.find(tmp_path, tmp_path / "report")[0]
    steps, seconds = series.training_clock(run)
    # 2 s each; the first epoch, whose own 22 s have compiling in them, as the others.
    assert steps.tolist() == [0, 20, 40, 60]
    assert seconds == pytest.approx([0.0, 2.0, 4.0, 6.0])


def test_one_epoch_without_windows_has_no_clock(tmp_path):
    without(write_run(tmp_path, policy="float32", epochs=1), records.STEP_TIME)
    (run,) = runs.find(tmp_path, tmp_path / "report")[0]
    assert series.training_clock(run) is None
