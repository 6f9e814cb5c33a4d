"""What is drawn over steps, worked out again by hand: bins, seeds, breaks, and places in time."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from drawn_groups import group_of, without

from tests.reporting.made_runs import LOG_EVERY, write_run
from tfamp.reporting import runs
from tfamp.reporting.figures import series
from tfamp.run import records


def with_rows(folder, change):
    """Changes a run's rows: each is given to `change`, which returns it, or None to drop it."""
    path = folder / "metrics.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))
    return folder


def loss_of(function):
    """A change of rows that gives each step its loss; None takes it out."""

    def change(row):
        if row["kind"] == "step":
            loss = function(row["step"])
            row[records.TRAIN_LOSS] = loss
            if loss is None:
                del row[records.TRAIN_LOSS]
        return row

    return change


def write_losses(logdir, steps, *functions):
    """A variant of one run for each function from step to loss."""
    for seed, function in enumerate(functions):
        folder = write_run(
            logdir, policy="float32", seed=seed, steps_per_epoch=steps, epochs=1, name=str(seed)
        )
        with_rows(folder, loss_of(function))
    return group_of(logdir).baseline


def test_a_point_is_the_mean_of_its_own_steps(tmp_path):
    variant = write_losses(tmp_path, 250, lambda step: step**2)
    curve, bin_steps = series.training_loss(variant)
    # 250 steps in at most 100 points: bins of 3, 1 to 3 the first and 250 alone the last.
    assert bin_steps == 3
    assert curve.steps.tolist() == [*range(3, 250, 3), 250]
    means = [((n - 2) ** 2 + (n - 1) ** 2 + n**2) / 3 for n in range(3, 250, 3)]
    assert curve.values.shape == (1, 84)
    assert curve.values[0] == pytest.approx([*means, 250**2])


@pytest.mark.parametrize(
    ("steps", "bin_steps", "points"), [(20, 1, 20), (100, 1, 100), (101, 2, 51), (200, 2, 100)]
)
def test_at_most_a_hundred_points_are_drawn(steps, bin_steps, points, tmp_path):
    curve, found = series.training_loss(write_losses(tmp_path, steps, float))
    assert (found, len(curve.steps), curve.steps[-1]) == (bin_steps, points, steps)
    assert curve.values[0][0] == (1 + bin_steps) / 2
    assert curve.values[0][-1] == steps - (0.5 if steps % bin_steps == 0 and bin_steps > 1 else 0)


def test_a_bin_with_a_loss_that_is_not_finite_is_a_gap_and_one_without_losses_too(tmp_path):
    broken = {4: "NaN", 9: "Infinity"}
    variant = write_losses(
        tmp_path,
        250,
        lambda step: broken.get(step, 1.0),
        # As of a scaler that is read at marks: most steps have no row.
        lambda step: 2.0 if step % 5 == 0 else None,
    )
    curve, _ = series.training_loss(variant)
    first, second = curve.values
    assert np.flatnonzero(np.isnan(first)).tolist() == [1, 2]
    # Steps 5, 10, 15 lie in the second, fourth and fifth bin.
    assert np.isnan(second[:6]).tolist() == [True, False, True, False, False, True]
    assert set(second[np.isfinite(second)]) == {2.0}
    assert curve.mean[[3, 4]].tolist() == [1.5, 1.5] and np.isnan(curve.mean[:3]).all()
    low, high = curve.range
    assert (low[1], high[1]) == (2.0, 2.0), "one seed is finite there"
    assert math.isnan(low[2]) and math.isnan(high[2])
    assert (low[3], high[3]) == (1.0, 2.0)


def test_seeds_of_different_lengths_lie_on_the_same_steps(tmp_path):
    variant = write_losses(tmp_path, 5, float, lambda step: 10.0 * step if step < 3 else None)
    curve, bin_steps = series.training_loss(variant)
    assert bin_steps == 1 and curve.steps.tolist() == [1, 2, 3, 4, 5]
    assert curve.values[0].tolist() == [1, 2, 3, 4, 5]
    assert curve.values[1][:2].tolist() == [10, 20] and np.isnan(curve.values[1][2:]).all()


def test_no_losses_have_no_curve(tmp_path):
    assert series.training_loss(write_losses(tmp_path, 5, lambda step: None)) == (None, 1)


def test_a_figure_stands_at_the_rows_that_have_it(tmp_path):
    for seed in range(2):
        write_run(tmp_path, policy="float32", seed=seed, accuracy=0.4 + 0.2 * seed, name=str(seed))
    late = {20: None, 60: "NaN"}

    def change(row):
        if row["kind"] == "epoch" and row["step"] in late:
            row[records.VALIDATION_ACCURACY] = late[row["step"]]
            if row[records.VALIDATION_ACCURACY] is None:
                del row[records.VALIDATION_ACCURACY]
        return row

    with_rows(tmp_path / "1", change)
    variant = group_of(tmp_path).baseline
    curve = series.at_rows(variant, records.VALIDATION_ACCURACY, "epoch", 100.0)
    assert curve.steps.tolist() == [20, 40, 60]
    assert curve.values[0] == pytest.approx([40 / 3, 80 / 3, 40.0])
    assert curve.values[1] == pytest.approx([math.nan, 40.0, math.nan], nan_ok=True)
    plain = series.at_rows(variant, records.VALIDATION_ACCURACY, "epoch")
    assert plain.values[0] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4])
    assert series.at_rows(variant, records.VALIDATION_ACCURACY, "step") is None


def test_a_break_is_the_first_of_all_losses_that_are_not_finite(tmp_path):
    variant = write_losses(
        tmp_path,
        20,
        float,
        lambda step: "Infinity" if step == 7 else ("NaN" if step > 17 else 1.0),
    )
    # The epoch's training loss is not finite either.
    folder = tmp_path / "1"
    with_rows(
        folder,
        lambda row: row | {records.TRAIN_LOSS: "NaN"} if row["kind"] == "epoch" else row,
    )
    variant = group_of(tmp_path).baseline
    assert series.breaks(variant) == [series.Break(seed=1, step=7, word="infinite", count=5)]


def test_a_step_lies_where_the_seeds_lie_on_average(tmp_path):
    for seed, step_ms in enumerate((100.0, 100.0, 400.0)):
        write_run(tmp_path, policy="float32", seed=seed, step_ms=step_ms)
    variant = group_of(tmp_path).baseline
    steps = np.array([0, 5, 8, 60])
    assert series.Place.of(variant, over_time=False)(steps).tolist() == steps.tolist()
    # 5 steps of 0.2 s on average; 3 more of the second windows, which take a tenth longer.
    assert series.Place.of(variant, over_time=True)(steps) == pytest.approx([0, 1.0, 1.66, 12.0])


def test_a_seed_without_times_lies_where_the_others_do(tmp_path):
    for seed in range(2):
        write_run(tmp_path, policy="float32", seed=seed, name=str(seed), epochs=1)
    without(tmp_path / "0", records.STEP_TIME)
    place = series.Place.of(group_of(tmp_path).baseline, over_time=True)
    assert place(np.array([5])) == pytest.approx([0.5])
    without(tmp_path / "1", records.STEP_TIME)
    assert series.Place.of(group_of(tmp_path).baseline, over_time=True) is None


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


def test_a_window_that_reaches_over_an_epochs_end_is_cut_there(tmp_path):
    # Without the window at step 20 the first epoch ends in none: the usual step fills it.
    def change(row):
        if row["step"] in (20, 25):
            row.pop(records.STEP_TIME, None)
        return row

    with_rows(write_run(tmp_path, policy="float32", step_ms=100.0), change)
    (run,) = runs.find(tmp_path, tmp_path / "report")[0]
    steps, seconds = series.training_clock(run)
    assert steps.tolist() == [0, 5, 10, 15, 20, *range(30, 61, 5)]
    # 5 steps of 100, 110 and 90 ms; 5 of 100 ms, the median; 10 of the window that ends at 30.
    assert seconds[:6] == pytest.approx([0.0, 0.5, 1.05, 1.5, 2.0, 2.9])


def test_an_epoch_after_the_first_without_a_window_at_its_end_takes_its_own_step(tmp_path):
    def change(row):
        if row["step"] == 40:
            row.pop(records.STEP_TIME, None)
            if row["kind"] == "epoch":
                row[records.EPOCH_TIME] = 40.0
        return row

    with_rows(write_run(tmp_path, policy="float32", step_ms=100.0), change)
    (run,) = runs.find(tmp_path, tmp_path / "report")[0]
    steps, seconds = series.training_clock(run)
    at = steps.tolist().index(40)
    assert seconds[at] - seconds[at - 1] == pytest.approx(5 * 2.0)


@pytest.mark.parametrize("bad", [0, "Infinity", "NaN"])
def test_a_time_that_is_none_is_no_window(bad, tmp_path):
    def change(row):
        if row["step"] == 10 and records.STEP_TIME in row:
            row[records.STEP_TIME] = bad
        return row

    with_rows(write_run(tmp_path, policy="float32", step_ms=100.0), change)
    (run,) = runs.find(tmp_path, tmp_path / "report")[0]
    steps, seconds = series.training_clock(run)
    assert steps.tolist()[:3] == [0, 5, 15]
    assert seconds[:3] == pytest.approx([0.0, 0.5, 1.4])


@pytest.mark.parametrize("bad", [0, "Infinity", "NaN"])
def test_an_epoch_whose_time_is_none_takes_the_usual_step(bad, tmp_path):
    def change(row):
        row.pop(records.STEP_TIME, None)
        if row["kind"] == "epoch" and row["step"] == 40:
            row[records.EPOCH_TIME] = bad
        return row

    with_rows(write_run(tmp_path, policy="float32", step_ms=100.0), change)
    (run,) = runs.find(tmp_path, tmp_path / "report")[0]
    steps, seconds = series.training_clock(run)
    # The third epoch's 2 s are all that is known.
    assert steps.tolist() == [0, 20, 40, 60]
    assert seconds == pytest.approx([0.0, 2.0, 4.0, 6.0])
