"""What the picture of step times shows."""

from __future__ import annotations

import pytest
from drawn_groups import group_of

from tests.reporting.made_runs import LOG_EVERY, STEPS_PER_EPOCH, write_run
from tfamp.reporting.figures import step_time_plot


def test_step_times_say_how_many_windows(three_seeds):
    figure, picture = step_time_plot.step_times(three_seeds)
    windows = 3 * 3 * STEPS_PER_EPOCH // LOG_EVERY
    told = [text.get_text() for text in figure.axes[0].texts]
    assert told.count(f"{windows} windows, 3 seeds") == 2
    assert "float32: median 100 ms" in picture.alt


def test_few_windows_are_points_and_no_box(tmp_path):
    write_run(tmp_path, policy="float32", epochs=1)
    figure, _ = step_time_plot.step_times(group_of(tmp_path))
    (axes,) = figure.axes
    assert len(axes.patches) == 0
    assert axes.lines[0].get_xdata() == pytest.approx([100.0, 110.0, 90.0, 100.0])
