"""What the picture of the loss scale shows."""

from __future__ import annotations

import math

import pytest
from drawn_groups import group_of

from tests.reporting.made_runs import write_run
from tfamp.reporting import comparison, runs
from tfamp.reporting.figures import scale_plot


def test_the_loss_scale_shows_its_steps_and_skips(three_seeds):
    figure, picture = scale_plot.loss_scale(three_seeds)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log" and axes.yaxis.get_transform().base == 2
    line, crosses = axes.lines[:2]
    assert line.get_xydata().tolist() == [[1, 2**16], [4, 2**16], [5, 2**15], [60, 2**15]]
    assert crosses.get_xydata().tolist() == [[4, 2**16]]
    assert axes.get_title(loc="left").splitlines() == [
        "mixed_float16",
        "skipped 1 of 60 steps in each of 3 seeds",
    ]
    ticks = [axes.yaxis.get_major_formatter()(value) for value in axes.get_yticks()]
    assert ticks == ["2¹⁵", "2¹⁶"]
    assert "between 32768 and 65536" in picture.alt


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_a_scale_that_cannot_be_drawn_is_counted(tmp_path, bad):
    write_run(tmp_path, policy="mixed_float16", scales=[bad] * 3 + [2.0] * 57)
    group = comparison.compare(runs.find(tmp_path, tmp_path / "r")[0], "mixed_float16").groups[0]
    _, picture = scale_plot.loss_scale(group)
    assert "3 steps had a scale that is not finite or not above 0" in picture.caption


def test_static_scales_are_drawn_and_none_is_not(tmp_path):
    write_run(tmp_path, policy="mixed_float16", loss_scale="1024", scales=[1024.0] * 60, name="a")
    write_run(tmp_path, policy="mixed_float16", loss_scale="none", name="b")
    write_run(tmp_path, policy="float32")
    figure, _ = scale_plot.loss_scale(group_of(tmp_path))
    (axes,) = figure.axes
    assert "with loss scale 1024" in axes.get_title(loc="left")
