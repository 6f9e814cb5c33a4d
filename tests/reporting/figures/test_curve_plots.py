"""What the curves show: read off the figures, not off pixels."""

from __future__ import annotations

import json

import pytest
from drawn_groups import group_of

from tests.reporting.made_runs import LOG_EVERY, write_run
from tfamp.reporting.figures import curve_plots, style
from tfamp.run import records


def test_curves_are_means_with_validation_at_epochs(three_seeds):
    figure, picture = curve_plots.curves(three_seeds)[0]
    accuracy = figure.axes[1]
    by_style = {}
    for line in accuracy.lines:
        by_style.setdefault(line.get_color(), []).append(line)
    training, validation = by_style[style.STYLES[1].colour]
    assert validation.get_xdata().tolist() == [20, 40, 60]
    # 0.70, 0.75 and 0.80 at the end, a third of it after each of three epochs.
    assert validation.get_ydata() == pytest.approx([25.0, 50.0, 75.0])
    assert training.get_xdata().tolist() == list(range(LOG_EVERY, 61, LOG_EVERY))
    assert "validation accuracy 75 %" in picture.alt
    assert "lowest seed to the highest" in picture.caption


def test_long_losses_are_averaged_and_say_so(tmp_path):
    write_run(tmp_path, policy="float32", steps_per_epoch=150, epochs=2)
    figure, picture = curve_plots.curves(group_of(tmp_path))[0]
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
    for figure, picture in curve_plots.curves(group):
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
    figure, _ = curve_plots.curves(group_of(tmp_path))[0]
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
    figure, _ = curve_plots.curves(group_of(tmp_path))[0]
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylabel() == "Loss (log axis)"
