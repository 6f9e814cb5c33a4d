"""The pictures of a group: which there are, and that any number of runs can be drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from drawn_groups import group_of, without
from matplotlib.image import imread

from tests.marks import slow
from tests.reporting.made_runs import rewrite, write_run
from tfamp.reporting.figures import (
    curve_plots,
    group_pictures,
    memory_plot,
    picture,
    step_time_plot,
)
from tfamp.run import records


def test_every_picture_is_written_and_named(three_seeds, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures = group_pictures.draw(three_seeds, folder)
    assert [entry.file for entry in pictures] == list(group_pictures.FILES)
    assert sorted(path.name for path in folder.iterdir()) == sorted(group_pictures.FILES)
    for entry in pictures:
        height, width, _ = imread(folder / entry.file).shape
        assert width == picture.WIDTH_INCHES * picture.DOTS_PER_INCH and height > 300
        assert (folder / entry.file).stat().st_size < 400_000
        assert entry.title and entry.caption
        assert all(variant.label in entry.alt for variant in three_seeds.variants[1:])


def test_drawing_leaves_matplotlib_as_it_was(three_seeds, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    group_pictures.draw(three_seeds, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_axes_have_labels_with_units(three_seeds):
    drawn = [
        *curve_plots.curves(three_seeds),
        step_time_plot.step_times(three_seeds),
        memory_plot.memory(three_seeds),
    ]
    labels = [[(a.get_xlabel(), a.get_ylabel()) for a in figure.axes] for figure, _ in drawn]
    assert labels == [
        [("", "Loss"), ("Training step", "Accuracy (%)")],
        [("", "Loss"), ("Training time without compiling (s)", "Accuracy (%)")],
        [("Step time (ms)", "")],
        [("Peak memory (MiB) on\nCPU:0 (a test's CPU)", "")],
    ]


def test_what_nothing_measured_gets_no_picture(tmp_path):
    folder = write_run(tmp_path / "runs", policy="float32", peak=None)
    without(folder, records.STEP_TIME, records.EPOCH_TIME)
    rewrite(folder / "result.json", step_time_ms=None)
    pictures = group_pictures.draw(group_of(tmp_path / "runs"), tmp_path)
    assert [entry.file for entry in pictures] == ["curves_over_steps.png"]


@pytest.mark.parametrize(("variants", "seeds"), [(1, 1), (8, 1), (1, 10), slow(8, 3)])
def test_any_number_of_variants_and_seeds_is_drawn(tmp_path, variants, seeds):
    settings = [
        {"policy": "float32"},
        {"policy": "mixed_float16"},
        {"policy": "mixed_bfloat16"},
        {"policy": "float16"},
        {"policy": "bfloat16"},
        {"policy": "mixed_float16", "loss_scale": "none"},
        {"policy": "mixed_float16", "loss_scale": "1024"},
        {"policy": "mixed_float16", "float32_layers": ("_h$ead.*",)},
    ]
    for seed, (index, flags) in itertools.product(range(seeds), enumerate(settings[:variants])):
        write_run(tmp_path / "runs", name=f"{index}-{seed}", seed=seed, epochs=1, **flags)
    group = group_of(tmp_path / "runs")
    assert len(group.variants) == variants
    for entry in group_pictures.draw(group, tmp_path):
        assert np.isfinite(imread(tmp_path / entry.file)).all()
