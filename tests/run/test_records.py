from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tfamp.run import records


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def write(path, *rows):
    writer = records.RowWriter(path)
    for row in rows:
        writer.write(*row)
    writer.close()


def test_rows_come_back_as_they_were(path):
    write(
        path,
        ("step", 1, 0, {"train/loss": 2.5, "scale/skipped_total": 3}),
        ("epoch", 1, 0, {"validation/accuracy": 1 / 3}),
        ("event", 1, 0, {"event": "failed", "error": 'ValueError: "é"\nsecond line'}),
    )
    assert records.read_rows(path) == [
        {"kind": "step", "step": 1, "epoch": 0, "train/loss": 2.5, "scale/skipped_total": 3},
        {"kind": "epoch", "step": 1, "epoch": 0, "validation/accuracy": 1 / 3},
        {
            "kind": "event",
            "step": 1,
            "epoch": 0,
            "event": "failed",
            "error": 'ValueError: "é"\nsecond line',
        },
    ]
    assert len(path.read_text().splitlines()) == 3


def test_numbers_that_json_has_not(path):
    write(path, ("step", 1, 0, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1e-300}))
    line = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (line["a"], line["b"], line["c"]) == ("NaN", "Infinity", "-Infinity")
    (row,) = records.read_rows(path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"]) == (math.inf, -math.inf, 1e-300)


@pytest.mark.parametrize("value", [0, -5, 2**70, 0.0, -0.5, math.inf, -math.inf])
def test_a_number_survives(value):
    there = json.loads(json.dumps(records.to_json_number(value), allow_nan=False))
    back = records.from_json_number(there)
    assert back == value
    assert type(back) is type(value)


def test_nan_survives():
    assert math.isnan(records.from_json_number(records.to_json_number(math.nan)))


def test_numbers_within_dicts_and_lists_survive():
    values = {"a": [math.inf, 1, {"b": -math.inf, "c": "NaN of a kind"}], "d": True, "e": None}
    there = json.loads(json.dumps(records.to_json_number(values), allow_nan=False))
    assert records.from_json_number(there) == values


def test_other_strings_stay_strings():
    assert records.from_json_number("failed") == "failed"
    assert records.from_json_number(None) is None


def test_a_last_line_cut_short_is_passed_over(path):
    write(path, ("step", 1, 0, {"train/loss": 1.0}), ("step", 2, 0, {"train/loss": 2.0}))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        steps = [row["step"] for row in records.read_rows(path)]
        # Without its line break the second line is whole all the same.
        assert steps == ([1, 2] if length == len(whole) - 1 else [1])


def test_a_broken_line_in_the_middle_is_an_error(path):
    path.write_text('{"step": 1}\n{"step": 2, "tr\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is no JSON: "):
        records.read_rows(path)


def test_a_broken_last_line_that_was_ended_is_an_error(path):
    path.write_text('{"step": 1}\n{"step": 2, "tr\n')
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        records.read_rows(path)


def test_a_line_that_is_no_object_is_an_error(path):
    path.write_text('{"step": 1}\n[1, 2]\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 is no JSON object"):
        records.read_rows(path)


def test_an_empty_file_has_no_rows(path):
    path.touch()
    assert records.read_rows(path) == []


def test_rows_are_appended_and_seen_after_a_flush(path):
    write(path, ("step", 1, 0, {}))
    writer = records.RowWriter(path)
    writer.write("step", 2, 0, {})
    writer.flush()
    assert [row["step"] for row in records.read_rows(path)] == [1, 2]
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write("step", 3, 0, {})


def test_a_value_that_json_cannot_hold_leaves_no_half_line(path):
    writer = records.RowWriter(path)
    with pytest.raises((TypeError, ValueError)):
        writer.write("step", 1, 0, {"train/loss": object()})
    writer.write("step", 2, 0, {})
    writer.close()
    assert [row["step"] for row in records.read_rows(path)] == [2]


def test_names_are_group_and_name():
    assert len(records.FIGURES) == len(set(records.FIGURES)) == 20
    assert all(figure.count("/") == 1 for figure in records.FIGURES)
    columns = [figure.column for figure in records.FIGURES if figure.column]
    assert len(columns) == len(set(columns)) == len(records.figures_of_history())


def test_a_figure_is_its_name_wherever_a_name_belongs(path):
    write(path, ("step", 1, 0, {records.SCALE: 8.0}))
    (row,) = records.read_rows(path)
    assert row[records.SCALE] == row["scale/value"] == 8.0
    assert records.of_optimizer(records.SCALE, "generator") == "scale/value/generator"
    for copied in (copy.deepcopy(row), pickle.loads(pickle.dumps({records.SCALE: 8.0}))):
        assert copied[records.SCALE] == 8.0


def test_the_table_in_contributing_is_the_declaration():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| name | unit | in rows | what |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n")[2:]]
    declared = [[f"`{f}`", f.unit, f.rows, f.what] for f in records.FIGURES]
    assert rows[:-1] == declared
    # What a model reports besides has names of its own.
    assert rows[-1][0] == "`train/NAME`, `validation/NAME`"


def test_a_reader_needs_no_tensorflow():
    code = "import sys, tfamp.run.records; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
