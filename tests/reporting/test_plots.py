"""What the pictures show: read off the figures, not off pixels."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from made_runs import LOG_EVERY, STEPS_PER_EPOCH, rewrite, write_run
from matplotlib.image import imread

from tfamp.reporting import comparison, runs
from tfamp.reporting.figures import curves, plot_style, plots, scale_plot, series
from tfamp.run import records


def group_of(logdir):
    found, passed_over = runs.find(logdir, logdir / "report")
    assert passed_over == []
    (group,) = comparison.compare(found, "float32").groups
    return group


def without(folder, *names):
    """Takes figures out of a run's rows."""
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{n: v for n, v in row.items() if n not in names} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))


@pytest.fixture
def three_seeds(tmp_path):
    for seed in range(3):
        write_run(tmp_path, policy="float32", seed=seed, step_ms=100.0, accuracy=0.8)
        write_run(
            tmp_path,
            policy="mixed_float16",
            seed=seed,
            step_ms=50.0 + seed,
            accuracy=0.7 + 0.05 * seed,
            scales=[2.0**16] * 4 + [2.0**15] * 56,
            skips=(4,),
        )
    return group_of(tmp_path)


def test_every_picture_is_written_and_named(three_seeds, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures = plots.draw(three_seeds, folder)
    assert [picture.file for picture in pictures] == list(plots.FILES)
    assert sorted(path.name for path in folder.iterdir()) == sorted(plots.FILES)
    for picture in pictures:
        height, width, _ = imread(folder / picture.file).shape
        assert width == plot_style.WIDTH_INCHES * plot_style.DOTS_PER_INCH and height > 300
        assert (folder / picture.file).stat().st_size < 400_000
        assert picture.title and picture.caption
        assert all(variant.label in picture.alt for variant in three_seeds.variants[1:])


def test_drawing_leaves_matplotlib_as_it_was(three_seeds, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.draw(three_seeds, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_axes_have_labels_with_units(three_seeds):
    drawn = [*curves.curves(three_seeds), plots.step_times(three_seeds), plots.memory(three_seeds)]
    labels = [[(a.get_xlabel(), a.get_ylabel()) for a in figure.axes] for figure, _ in drawn]
    assert labels == [
        [("", "Loss"), ("Training step", "Accuracy (%)")],
        [("", "Loss"), ("Training time without compiling (s)", "Accuracy (%)")],
        [("Step time (ms)", "")],
        [("Peak memory (MiB) on\nCPU:0 (a test's CPU)", "")],
    ]


def test_curves_are_means_with_validation_at_epochs(three_seeds):
    figure, picture = curves.curves(three_seeds)[0]
    accuracy = figure.axes[1]
    by_style = {}
    for line in accuracy.lines:
        by_style.setdefault(line.get_color(), []).append(line)
    training, validation = by_style[plot_style.STYLES[1].colour]
    assert validation.get_xdata().tolist() == [20, 40, 60]
    # 0.70, 0.75 and 0.80 at the end, a third of it after each of three epochs.
    assert validation.get_ydata() == pytest.approx([25.0, 50.0, 75.0])
    assert training.get_xdata().tolist() == list(range(LOG_EVERY, 61, LOG_EVERY))
    assert "validation accuracy 75 %" in picture.alt
    assert "lowest seed to the highest" in picture.caption


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


def test_long_losses_are_averaged_and_say_so(tmp_path):
    write_run(tmp_path, policy="float32", steps_per_epoch=150, epochs=2)
    figure, picture = curves.curves(group_of(tmp_path))[0]
    assert len(figure.axes[0].lines[0].get_xdata()) == 100
    assert "means of 3 steps" in picture.caption


def test_a_broken_loss_is_marked(tmp_path):
    for seed in range(2):
        write_run(tmp_path, policy="float32", seed=seed)
        write_run(
            tmp_path,
            policy="mixed_float16",
            loss_scale="none",
            seed=seed,
            non_finite_steps=(24,) if seed else (),
        )
    group = group_of(tmp_path)
    for figure, picture in curves.curves(group):
        (words,) = [text.get_text() for text in figure.axes[0].texts]
        assert words == "NaN from step 25"
        marks = [line for line in figure.axes[0].lines if line.get_marker() == "X"]
        assert len(marks) == 1
        assert "not finite in seed 1 from step 25" in picture.caption
        assert "not finite in seed 1 from step 25" in picture.alt


def test_nothing_but_nan_is_said(tmp_path):
    folder = write_run(tmp_path, policy="float32")
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {n: "NaN" for n in row if n.endswith("/loss")}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure, _ = curves.curves(group_of(tmp_path))[0]
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "no finite loss",
        "NaN from step 1",
    ]


def test_an_exploding_loss_gets_a_logarithmic_axis(tmp_path):
    folder = write_run(tmp_path, policy="float32")
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[30][records.TRAIN_LOSS] = 1e9
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure, _ = curves.curves(group_of(tmp_path))[0]
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylabel() == "Loss (log axis)"


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


def test_what_nothing_measured_gets_no_picture(tmp_path):
    folder = write_run(tmp_path / "runs", policy="float32", peak=None)
    without(folder, records.STEP_TIME, records.EPOCH_TIME)
    rewrite(folder / "result.json", step_time_ms=None)
    pictures = plots.draw(group_of(tmp_path / "runs"), tmp_path)
    assert [picture.file for picture in pictures] == ["curves_over_steps.png"]


def test_a_variant_without_a_figure_keeps_its_row(tmp_path):
    write_run(tmp_path, policy="float32", peak=2**20)
    write_run(tmp_path, policy="mixed_bfloat16", peak=None)
    figure, picture = plots.memory(group_of(tmp_path))
    assert "not measured" in [text.get_text() for text in figure.axes[0].texts]
    assert "mixed_bfloat16 was not measured." in picture.alt


def test_step_times_say_how_many_windows(three_seeds):
    figure, picture = plots.step_times(three_seeds)
    windows = 3 * 3 * STEPS_PER_EPOCH // LOG_EVERY
    told = [text.get_text() for text in figure.axes[0].texts]
    assert told.count(f"{windows} windows, 3 seeds") == 2
    assert "float32: median 100 ms" in picture.alt


def test_few_windows_are_points_and_no_box(tmp_path):
    write_run(tmp_path, policy="float32", epochs=1)
    figure, _ = plots.step_times(group_of(tmp_path))
    (axes,) = figure.axes
    assert len(axes.patches) == 0
    assert axes.lines[0].get_xdata() == pytest.approx([100.0, 110.0, 90.0, 100.0])


def test_memory_has_an_interval_and_a_point_for_each_seed(tmp_path):
    for seed, mebibytes in enumerate((100, 104, 108)):
        write_run(tmp_path, policy="float32", seed=seed, peak=mebibytes * 2**20)
    figure, _ = plots.memory(group_of(tmp_path))
    (axes,) = figure.axes
    assert axes.patches[0].get_width() == pytest.approx((100 * 104 * 108) ** (1 / 3))
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert points[0].get_xdata().tolist() == [100, 104, 108]
    low, high = axes.collections[0].get_segments()[0][:, 0]
    # In logarithms: ln 104 about, -+ t(0.975, 2) * 0.0385 / sqrt(3), from tables by hand.
    assert (low, high) == pytest.approx((94.4717, 114.3763), abs=1e-3)


@pytest.mark.parametrize(("variants", "seeds"), [(1, 1), (8, 1), (1, 10), (8, 3)])
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
    for picture in plots.draw(group, tmp_path):
        assert np.isfinite(imread(tmp_path / picture.file)).all()


def lightness(colour):
    """CIELAB's L* of `#rrggbb`, from sRGB (IEC 61966-2-1): what is left of a colour in grey."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 216 / 24389 else luminance * 24389 / 27


def test_styles_differ_in_grey_in_dashes_and_in_markers():
    for one, other in itertools.combinations(plot_style.STYLES, 2):
        assert abs(lightness(one.colour) - lightness(other.colour)) >= 7, (one, other)
        assert one.dashes != other.dashes and one.marker != other.marker
    # The first four, which most reports have, differ by far more.
    first = sorted(lightness(style.colour) for style in plot_style.STYLES[:4])
    assert min(np.diff(first)) > 15
    # A contrast of 3 to white, as WCAG 2.1 asks of graphics, is a lightness of 61.7 or less.
    assert max(lightness(style.colour) for style in plot_style.STYLES) <= 62.5


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mixed_float16", "mixed_float16"),
        ("a\nb\x1b[31m", "a?b?[31m"),
        ("_hidden", " _hidden"),
        ("层", "?"),
        ("x" * 50, "x" * 21 + "..." + "x" * 20),
    ],
)
def test_texts_from_disk_are_made_fit(text, shown):
    assert plot_style.shown(text) == shown
