"""What the pictures of a fidelity show: each number where it belongs, nothing left out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from matplotlib.image import imread

from tests.marks import slow
from tests.reporting import made_fidelity
from tfamp.reporting import exponents, fidelity_points
from tfamp.reporting.figures import (
    error_plot,
    exponent_plot,
    fidelity_pictures,
    layer_map,
    layer_rows,
    picture,
    size_plot,
)
from tfamp.run.fidelity import Histogram, Window


def lines_of(axes):
    """The points of each line that has any."""
    return [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata())]


def test_the_error_has_its_points_its_crosses_and_its_window():
    fidelity = made_fidelity.contradiction()
    window = Window(log2_min=3, log2_max=7)
    fidelity = dataclasses.replace(fidelity, window=window, settled_log2_scale=9.0)
    figure, told = error_plot.error_over_scale(fidelity)
    (axes,) = figure.axes
    whole = fidelity_points.scaled(fidelity.precisions)
    curve = np.array(lines_of(axes)[0])
    expected = [math.nan if p.relative_error is None else p.relative_error for p in whole]
    np.testing.assert_array_equal(curve[:, 0], range(25))
    np.testing.assert_allclose(curve[:, 1], expected)
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    broken = [p.log2_scale for p in whole if p.relative_error is None]
    assert [line.get_xdata().tolist() for line in crosses] == [broken, broken]
    heights = [set(line.get_ydata()) for line in crosses]
    # In rows of their own above every error, so that no curve hides another's.
    assert all(len(each) == 1 for each in heights) and heights[0] != heights[1]
    assert min(min(each) for each in heights) > np.nanmax([*expected, 1.0])
    assert max(max(each) for each in heights) < axes.get_ylim()[1]
    assert "not\nfinite" in [label.get_text() for label in axes.get_yticklabels()]
    shade = axes.patches[0]
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (2.5, 7.5)
    across = [points for points in lines_of(axes) if points[0][1] == points[-1][1] > 0]
    for point in fidelity_points.unscaled(fidelity.precisions):
        assert any(each[0][1] == point.relative_error for each in across), point.precision
    assert [[9.0, 0.0], [9.0, 1.0]] in lines_of(axes)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert "layer block1" in labels and "layer block2" in labels
    assert "float32, unscaled" in labels and "mixed_bfloat16, unscaled" in labels
    first = f"2⁰: {100 * whole[0].relative_error:.3g} %"
    assert first in told.alt and told.alt.count("not finite") == len(broken) > 0


def test_an_error_of_zero_lies_at_the_foot_of_the_axis():
    fidelity = made_fidelity.one_layer()
    points = [
        dataclasses.replace(p, relative_error=0.0 if p.log2_scale == 4 else p.relative_error)
        for p in fidelity.precisions
    ]
    figure, _ = error_plot.error_over_scale(dataclasses.replace(fidelity, precisions=points))
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata()[4] == axes.get_ylim()[0] > 0


@pytest.mark.parametrize("error", [0.0, None])
def test_errors_that_no_axis_holds_are_drawn(error, tmp_path):
    fidelity = made_fidelity.one_layer()
    points = [dataclasses.replace(p, relative_error=error) for p in fidelity.precisions]
    layers = [dataclasses.replace(x, points=tuple(points)) for x in fidelity.layers]
    changed = dataclasses.replace(fidelity, precisions=tuple(points), layers=tuple(layers))
    assert len(fidelity_pictures.draw(changed, tmp_path)) == 4


def test_the_map_has_every_cell_and_the_outline_of_the_windows():
    fidelity = made_fidelity.contradiction()
    figure, told = layer_map.layers_and_scales(fidelity)
    axes = figure.axes[0]
    mesh, broken, outline = axes.collections
    cells = mesh.get_array()
    assert cells.shape == (3, 25)
    for row, layer in zip(cells, fidelity.layers, strict=True):
        for cell, point in zip(row, fidelity_points.scaled(layer.points), strict=True):
            if point.relative_error is None:
                assert cell is np.ma.masked
            else:
                assert cell == pytest.approx(np.clip(point.relative_error, 1e-6, 1.0))
    count = sum(p.relative_error is None for x in fidelity.layers for p in x.points)
    assert count == broken.get_array().count() > 0 and broken.get_hatch()
    assert f"{count} of 75 cells are not finite" in told.alt
    segments = [np.array(path).tolist() for path in outline.get_segments()]
    for row, layer in enumerate(fidelity.layers):
        window = layer.window
        for x in (window.log2_min - 0.5, window.log2_max + 0.5):
            assert [[x, row - 0.5], [x, row + 0.5]] in segments
    # block1's window ends where block2's has not begun: both are closed between the rows.
    high, low = fidelity.layers[0].window, fidelity.layers[1].window
    assert [[high.log2_min - 0.5, 0.5], [high.log2_max + 0.5, 0.5]] in segments
    assert [[low.log2_min - 0.5, 0.5], [low.log2_max + 0.5, 0.5]] in segments
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["block1", "block2", "block3"] and axes.get_ylim() == (2.5, -0.5)
    assert "block1" in told.alt and "No column lies" in told.caption


def test_columns_of_uneven_scales_meet_half_way():
    fidelity = made_fidelity.made({"a": -24.0, "b": -8.0}, log2_scales=(-4, 0, 8, 10))
    figure, _ = layer_map.layers_and_scales(fidelity)
    coordinates = figure.axes[0].collections[0].get_coordinates()
    assert coordinates[0, :, 0].tolist() == [-6, -2, 4, 9, 11]


def test_layers_without_a_gradient_are_left_out_and_counted():
    fidelity = made_fidelity.of_many_layers()
    figure, told = layer_map.layers_and_scales(fidelity)
    axes = figure.axes[0]
    assert axes.collections[0].get_array().shape == (125, 25)
    assert "25 more" in told.caption and "One row in 3 is named" in told.caption
    first, second = (axes.get_yticks()[index] for index in (0, 1))
    assert second - first == 3
    # No taller than two screens of a phone, and no name over another.
    assert figure.get_size_inches()[1] < 15
    assert layer_rows.inches(125) / 125 * 3 > 12 / 72


def test_a_layer_without_weights_is_shown_where_it_bounds_the_window():
    sizes = {"conv": -10.0, "relu": -20.0, "pool": -8.0, "head": -6.0}
    fidelity = made_fidelity.made(sizes, weightless=("relu", "pool"))
    figure, told = layer_map.layers_and_scales(fidelity)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv", "relu", "head"]
    relu = fidelity_points.scaled(fidelity.layers[1].activation_points)
    found = axes.collections[0].get_array()[1].compressed().tolist()
    expected = [p.relative_error for p in relu if p.relative_error is not None]
    assert found == pytest.approx(np.clip(expected, 1e-6, 1.0))
    assert "relu" in told.caption and "1 more" in told.caption
    curves, _ = error_plot.error_over_scale(fidelity)
    labels = [text.get_text() for text in curves.legends[0].get_texts()]
    assert "layer relu" in labels and "layer pool" not in labels


def test_one_row_is_high_enough_for_its_name():
    assert layer_rows.inches(1) >= 0.5 and layer_rows.inches(20) / 20 > 12 / 72


def test_the_histograms_bars_are_shares_and_their_limits_float16s():
    layers = [
        dataclasses.replace(
            made_fidelity.one_layer().layers[0],
            activation_exponents=Histogram(first=-30, counts=(30, 0, 10), zeros=50),
            weight_exponents=Histogram(first=-20, counts=(1, 3), zeros=0),
        ),
        dataclasses.replace(
            made_fidelity.one_layer().layers[0],
            activation_exponents=Histogram(first=-2, counts=(10,), zeros=0),
            weight_exponents=None,
        ),
    ]
    fidelity = made_fidelity.one_layer()
    advice = dataclasses.replace(fidelity.advice, static_scale=2.0**8)
    fidelity = dataclasses.replace(fidelity, layers=tuple(layers), advice=advice)
    figure, told = exponent_plot.exponent_histograms(fidelity)
    ranges, activations, weights = figure.axes
    assert [text.get_text() for text in ranges.texts] == ["float16 at scale 1", "at scale 2⁸"]
    bars = {bar.get_x(): bar.get_height() for bar in activations.patches}
    zeros = bars.pop(min(bars))
    assert (zeros, bars) == (0.5, {-30: 0.3, -28: 0.1, -2: 0.1})
    assert {bar.get_x(): bar.get_height() for bar in weights.patches} == {-20: 0.25, -19: 0.75}
    limits = sorted(line.get_xdata()[0] for line in weights.lines)
    assert limits == sorted(
        limit - scale for limit in (-24, -14, exponents.LARGEST) for scale in (0, 8)
    )
    # 40 of 50 are below 2^-25 at scale 1; times 2^8 those of 2^-30 are kept.
    assert "80 % at scale 1, 0 % at 2⁸" in activations.get_title(loc="left")
    assert "50 % of all entries are zero before" in told.alt and "80 % at scale 1" in told.alt


def test_without_an_advised_scale_the_limits_stand_once():
    figure, told = exponent_plot.exponent_histograms(made_fidelity.contradiction())
    assert len(figure.axes[1].lines) == 3 and "No scale is advised" in told.caption


def test_numbers_far_below_float16_share_the_first_bar():
    fidelity = made_fidelity.one_layer()
    deep = Histogram(first=-400, counts=(3,) + (0,) * 389 + (1,), zeros=0)
    layer = dataclasses.replace(
        fidelity.layers[0], activation_exponents=deep, weight_exponents=None
    )
    figure, _ = exponent_plot.exponent_histograms(dataclasses.replace(fidelity, layers=(layer,)))
    _, axes = figure.axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [0.75, 0.25] and axes.get_xlim()[0] > -100


def test_sizes_are_drawn_row_by_row_with_the_scaled_gradient():
    fidelity = made_fidelity.healthy()
    fidelity = dataclasses.replace(
        fidelity, advice=dataclasses.replace(fidelity.advice, static_scale=2.0**10)
    )
    figure, told = size_plot.sizes(fidelity)
    (axes,) = figure.axes
    layers = [layer for layer in fidelity.layers if layer.activation_points]
    outputs, gradients, scaled = (line.get_xdata() for line in axes.lines)
    np.testing.assert_allclose(outputs, [layer.output_log2_size for layer in layers])
    np.testing.assert_allclose(gradients, [layer.gradient_log2_size for layer in layers])
    np.testing.assert_allclose(scaled, np.array(gradients) + 10)
    assert axes.lines[0].get_ydata().tolist() == list(range(len(layers)))
    bands = [(band.get_x(), band.get_x() + band.get_width()) for band in axes.patches]
    low, high = axes.get_xlim()
    assert bands == [(low, -24), (pytest.approx(16, abs=1e-3), high), (-24, -14)]
    assert "1 more" in told.caption


def test_a_size_that_is_none_or_of_zeros_leaves_a_gap():
    fidelity = made_fidelity.contradiction()
    changed = [
        dataclasses.replace(layer, output_log2_size=size)
        for layer, size in zip(fidelity.layers, (None, -math.inf, 2.0), strict=True)
    ]
    figure, _ = size_plot.sizes(dataclasses.replace(fidelity, layers=tuple(changed)))
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [math.nan, math.nan, 2.0])


def test_what_was_not_measured_gets_no_picture(tmp_path):
    found = fidelity_pictures.draw(made_fidelity.without_float16(), tmp_path)
    assert [entry.file for entry in found] == [exponent_plot.FILE, size_plot.FILE]
    bare = dataclasses.replace(made_fidelity.without_float16(), layers=(), precisions=())
    assert fidelity_pictures.draw(bare, tmp_path) == []


@pytest.mark.parametrize("name", [x if x == "hostile" else slow(x) for x in made_fidelity.ALL])
def test_every_kind_is_drawn(name, tmp_path):
    for entry in fidelity_pictures.draw(made_fidelity.ALL[name](), tmp_path):
        assert entry.file in fidelity_pictures.FILES
        height, width, _ = imread(tmp_path / entry.file).shape
        assert width == picture.WIDTH_INCHES * picture.DOTS_PER_INCH and 250 < height < 2500
        assert (tmp_path / entry.file).stat().st_size < 400_000
        assert entry.title and entry.caption and entry.alt
        assert "None" not in entry.caption + entry.alt
