"""What the picture of memory shows."""

from __future__ import annotations

import pytest
from drawn_groups import group_of

from tests.reporting.made_runs import write_run
from tfamp.reporting.figures import memory_plot


def test_a_variant_without_a_figure_keeps_its_row(tmp_path):
    write_run(tmp_path, policy="float32", peak=2**20)
    write_run(tmp_path, policy="mixed_bfloat16", peak=None)
    figure, picture = memory_plot.memory(group_of(tmp_path))
    assert "not measured" in [text.get_text() for text in figure.axes[0].texts]
    assert "mixed_bfloat16 was not measured." in picture.alt


def test_memory_has_an_interval_and_a_point_for_each_seed(tmp_path):
    for seed, mebibytes in enumerate((100, 104, 108)):
        write_run(tmp_path, policy="float32", seed=seed, peak=mebibytes * 2**20)
    figure, _ = memory_plot.memory(group_of(tmp_path))
    (axes,) = figure.axes
    assert axes.patches[0].get_width() == pytest.approx((100 * 104 * 108) ** (1 / 3))
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert points[0].get_xdata().tolist() == [100, 104, 108]
    low, high = axes.collections[0].get_segments()[0][:, 0]
    # In logarithms: ln 104 about, -+ t(0.975, 2) * 0.0385 / sqrt(3), from tables by hand.
    assert (low, high) == pytest.approx((94.4717, 114.3763), abs=1e-3)
