"""What the rows say of the loss scale."""

import json

import pytest
from made_runs import rewrite, write_run

from tfamp.reporting import comparison, document, runs, scale_summary
from tfamp.reporting.pages import scale_tables
from tfamp.run import records
from tfamp.run.fidelity import Window
from tfamp.run.result import AutoScale


def read(folder):
    return runs.read(folder, folder.name)


def with_scale(folder, **values):
    result = json.loads((folder / "result.json").read_text())
    rewrite(folder / "result.json", loss_scale=result["loss_scale"] | values)
    return folder


def test_a_dynamic_scale_that_fell_and_grew(tmp_path):
    scales = [2.0**16] * 3 + [2.0**15] * 2 + [2.0**14] * 25 + [2.0**15] * 30
    run = read(write_run(tmp_path, policy="mixed_float16", scales=scales, skips=(3, 5)))
    assert scale_summary.summarise_scale(run) == scale_summary.ScaleSummary(
        mode="dynamic",
        initial=2.0**16,
        settled=2.0**15,
        final=2.0**15,
        growths=1,
        skipped=2,
        first_overflow_step=3,
        steps=60,
        skipped_non_finite_loss=0,
    )


@pytest.mark.parametrize(("is_open", "above"), [(False, 4), (True, 0)])
def test_steps_outside_the_window_are_counted(is_open, above, tmp_path):
    scales = [2.0**9] * 3 + [2.0**10] * 53 + [2.0**15] * 4
    window = Window(log2_min=10, log2_max=14, is_open=is_open)
    folder = write_run(
        tmp_path, policy="mixed_float16", loss_scale="auto", scales=scales,
        auto=AutoScale(initial=2.0**9, window=window),
    )  # fmt: skip
    run = read(folder)
    summary = scale_summary.summarise_scale(run)
    assert (summary.window, summary.mode) == (window, "dynamic")
    assert (summary.steps_below, summary.steps_above) == (3, above)
    assert run.figures.loss_scale.stayed_in_window is False


def test_without_a_window_no_step_is_outside(tmp_path):
    auto = AutoScale(initial=2.0**15, window=None, why="None was found.")
    folder = write_run(tmp_path, policy="mixed_float16", loss_scale="auto", auto=auto)
    summary = scale_summary.summarise_scale(read(folder))
    assert summary.window is summary.steps_below is summary.steps_above is None


def test_with_accumulation_skips_are_of_updates_not_of_microbatches(tmp_path):
    folder = write_run(tmp_path, policy="mixed_float16", skips=(4, 8))
    rewrite(folder / "result.json", steps_attempted=30, steps_applied=28)
    run = read(folder)
    assert len(run.series(records.SCALE)) == 60
    summary = scale_summary.summarise_scale(run)
    assert (summary.skipped, summary.steps) == (2, 30)


def test_settled_is_what_held_in_the_second_half_and_not_a_last_dip(tmp_path):
    scales = [2.0**20] * 30 + [2.0**15] * 28 + [2.0**14] * 2
    summary = scale_summary.summarise_scale(
        read(write_run(tmp_path, policy="mixed_float16", scales=scales))
    )
    assert (summary.initial, summary.settled, summary.final) == (2.0**20, 2.0**15, 2.0**14)


def test_the_second_half_begins_in_the_middle(tmp_path):
    scales = [2.0**9] + [2.0**10] * 19 + [2.0**11] * 10 + [2.0**12] * 16 + [2.0**11] * 14
    summary = scale_summary.summarise_scale(
        read(write_run(tmp_path, policy="mixed_float16", scales=scales))
    )
    # 16 of the last 30, though 24 of the last 40 had the other.
    assert (summary.initial, summary.settled, summary.growths) == (2.0**9, 2.0**12, 3)


@pytest.mark.parametrize("skipped", [3, None])
def test_a_scaler_that_is_read_at_marks_tells_no_first_skip(skipped, tmp_path):
    folder = write_run(tmp_path, policy="mixed_float16", skips=(2, 5, 7))
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["step"] % 5:
            for name in (records.SCALE, records.SKIPPED_TOTAL):
                row.pop(name, None)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = scale_summary.summarise_scale(read(with_scale(folder, skipped=skipped)))
    assert (summary.skipped, summary.steps) == (skipped, 60)
    assert summary.first_overflow_step is None


def test_a_first_step_that_is_skipped_counts(tmp_path):
    summary = scale_summary.summarise_scale(
        read(write_run(tmp_path, policy="mixed_float16", skips=(1,)))
    )
    assert (summary.skipped, summary.first_overflow_step) == (1, 1)


def test_a_static_scale_never_grows(tmp_path):
    run = read(write_run(tmp_path, policy="mixed_float16", loss_scale="1024", scales=[1024.0] * 60))
    summary = scale_summary.summarise_scale(run)
    assert (summary.mode, summary.growths, summary.skipped) == ("static", 0, 0)
    assert summary.first_overflow_step is None


@pytest.mark.parametrize(
    "values", [{"policy": "float32"}, {"policy": "mixed_float16", "loss_scale": "none"}]
)
def test_where_nothing_is_scaled_there_is_no_summary(values, tmp_path):
    assert scale_summary.summarise_scale(read(write_run(tmp_path, **values))) is None


def test_skips_by_bad_losses_and_a_collapse_are_read_where_they_are_recorded(tmp_path):
    folder = write_run(tmp_path, name="old", policy="mixed_float16", skips=(3, 4))
    old = read(with_scale(folder, skipped_non_finite_loss=None))
    summary = scale_summary.summarise_scale(old)
    assert (summary.skipped_non_finite_loss, summary.collapsed_at) == (None, None)
    folder = write_run(tmp_path, name="new", policy="mixed_float16", skips=(3, 4))
    new = read(with_scale(folder, skipped_non_finite_loss=1, collapsed_at=9))
    summary = scale_summary.summarise_scale(new)
    assert (summary.skipped_non_finite_loss, summary.collapsed_at) == (1, 9)


@pytest.mark.parametrize(
    ("values", "new_columns"),
    [
        ({"skipped_non_finite_loss": None}, []),
        ({"skipped_non_finite_loss": 0, "collapsed_at": None}, [("With a bad loss", "0")]),
        (
            {"skipped_non_finite_loss": 2, "collapsed_at": 7},
            [("With a bad loss", "2"), ("Collapsed", "step 7")],
        ),
    ],
)
def test_the_table_has_a_column_where_there_is_something_to_tell(values, new_columns, tmp_path):
    write_run(tmp_path, policy="float32")
    with_scale(write_run(tmp_path, policy="mixed_float16", skips=(3, 4)), **values)
    found, _ = runs.find(tmp_path, tmp_path / "report")
    content = document.build(tmp_path, "float32", comparison.compare(found, "float32"), [])
    table = scale_tables.scales(content["groups"][0])
    ((_, row),) = table.rows
    told = dict(zip(table.header[1:], (cell.text for cell in row), strict=True))
    plain = {"Seeds", "Mode", "Initial", "Settled", "Final", "Growths", "Skipped steps"}
    assert [(n, v) for n, v in told.items() if n not in plain | {"First skip"}] == new_columns
    assert told["First skip"] == "step 3"
