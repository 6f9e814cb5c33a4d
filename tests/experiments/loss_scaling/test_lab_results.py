"""Runs side by side: what is kept of them, what they say together, and the pictures of them."""

import json
from types import SimpleNamespace

import pytest

from experiments.loss_scaling import (
    claim,
    claim_picture,
    comparison,
    failure,
    failure_pictures,
    results_file,
    scale_picture,
    training,
)
from experiments.loss_scaling.comparison import Cell
from experiments.loss_scaling.results_file import ResultsFile
from experiments.loss_scaling.scalings import DYNAMIC, FLOAT32, NONE, STATIC, Scaling
from experiments.loss_scaling.workloads import Classifier, Detector
from tests.messages import naming, says
from tfamp.run.errors import InputError

WORKLOAD = Detector()


class Typed(SimpleNamespace):
    """What was typed, as far as a results file asks."""

    def __getitem__(self, name):
        return getattr(self, name)


def typed(overwrite=False):
    return Typed(arguments=("--quick",), overwrite=overwrite)


def look(step, error, underflow=0.5):
    by_layer = None if underflow is None else {"convolution1": underflow, "convolution2": 0.0}
    return {
        "step": step,
        "log2_scale": 4.0,
        "relative_error": error,
        "underflow": underflow,
        "underflow_by_layer": by_layer,
    }


def made_run(scaling, seed=0, score=0.5, changes=((1, 4.0),), skips=(), settled_after=0, **more):
    return {
        "workload": WORKLOAD.name,
        "scaling": scaling.name,
        "seed": seed,
        "steps": 240,
        "ended_by": training.COMPLETED,
        "score": score,
        "losses": [0.2, 0.1, 0.05],
        "first_loss": 0.2,
        "last_loss": 0.1,
        "non_finite_from": None,
        "skips": len(skips),
        "first_skips": list(skips),
        "scale": {
            "log2_initial": changes[0][1],
            "log2_final": changes[-1][1],
            "settled_after": settled_after,
            "changes": [list(change) for change in changes],
        },
        "gradient": [look(0, 0.02), look(60, 0.04)],
        "gradient_error": 0.03,
        "seconds": 1.0,
    } | more


def settings(*workloads):
    return {"workloads": [workload.settings() for workload in workloads or (WORKLOAD,)]}


def count_runs(monkeypatch):
    made = []

    def run(workload, scaling, seed):
        made.append(Cell(workload, scaling, seed).name)
        return made_run(scaling, seed, gradient=[look(0, 0.1)])

    monkeypatch.setattr(training, "run", run)
    return made


def test_runs_that_are_there_are_kept_and_others_are_made(tmp_path, monkeypatch):
    made = count_runs(monkeypatch)
    cells = [Cell(WORKLOAD, Scaling(NONE), seed) for seed in (0, 1)]
    said = []

    def take(number, overwrite=False, **changed):
        found = settings() | changed
        results = ResultsFile(tmp_path / "a.json", "strategies", found, typed(overwrite))
        comparison.runs_of(cells[:number], results, said.append)

    take(1)
    assert made == ["detector, none, seed 0"]
    take(2)
    assert made == ["detector, none, seed 0", "detector, none, seed 1"]
    assert says(said[1], "1/2", "detector, none, seed 0", "was there")
    take(2, overwrite=True)
    assert len(made) == 4
    take(1, more=1)
    assert len(made) == 5
    told = json.loads((tmp_path / "a.json").read_text())
    assert "underflow_by_layer" not in told["runs"][made[0]]["gradient"][0]
    assert told["command"] == ("scripts/python.sh -m experiments.loss_scaling strategies --quick")
    assert told["settings"]["workloads"][0]["num_steps"] == WORKLOAD.num_steps


def test_runs_of_another_part_are_taken_where_the_workload_is_the_same(tmp_path, monkeypatch):
    made = count_runs(monkeypatch)
    other = tmp_path / "other.json"
    cell = Cell(WORKLOAD, Scaling(NONE), 0)
    comparison.runs_of([cell], ResultsFile(other, "claim", settings(), typed()), lambda _: None)

    def has(name, *workloads):
        found = ResultsFile(
            tmp_path / "own.json", "failure", settings(*workloads), typed(), [other]
        )
        return found.has(name)

    assert has(cell.name) and len(made) == 1
    assert has(cell.name, Classifier(), WORKLOAD)
    assert not has(cell.name, Detector(num_steps=7))
    monkeypatch.setattr(results_file, "SCHEMA_VERSION", 0)
    assert not has(cell.name)


@pytest.mark.parametrize("content", ["{", '{"runs": {}}', "[1]"])
def test_a_file_that_is_no_results_file_is_refused(tmp_path, content):
    path = tmp_path / "strategies.json"
    path.write_text(content)
    with pytest.raises(InputError, match=naming("strategies.json", "out")):
        ResultsFile(path, "strategies", settings(), typed())


def test_a_row_tells_mean_and_range_over_the_seeds():
    scaling = Scaling(STATIC, 4)
    cells = [Cell(WORKLOAD, scaling, seed) for seed in (0, 1, 2)]
    runs = [
        made_run(scaling, 0, score=0.25),
        made_run(scaling, 1, score=0.5, skips=(3, 7)),
        made_run(scaling, 2, score=0.75, gradient_error=None, ended_by=training.COLLAPSE),
    ]
    (row,) = comparison.table(cells, runs)
    assert row["score"] == {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 3}
    assert row["skips"] == {"mean": 0.66667, "low": 0, "high": 2, "n": 3}
    assert row["gradient_error"] == {"mean": 0.03, "low": 0.03, "high": 0.03, "n": 2}
    assert row["ended_by"] == {training.COMPLETED: 2, training.COLLAPSE: 1}
    assert row["settled_after"]["n"] == 3
    runs[1]["scale"]["settled_after"] = None
    assert comparison.table(cells, runs)[0]["settled_after"] is None
    assert says(comparison.shown([row], "found"), "static 2^4", "50.0% (25.0%-75.0%)", "3.00%")


@pytest.mark.parametrize(
    ("found", "common"),
    [
        ([(4, 20, True), (8, 24, True), (2, 22, False)], (8, 20, False)),
        ([(4, 10, False), (12, 20, False)], None),
        ([(4, 10, False), None], (4, 10, False)),
        ([None], None),
    ],
)
def test_what_windows_have_in_common(found, common):
    names = ("log2_min", "log2_max", "is_open")
    windows = [window and dict(zip(names, window, strict=True)) for window in found]
    expected = common and dict(zip(names, common, strict=True))
    assert claim.in_common(windows) == expected


def test_where_a_scale_lies():
    window = {"log2_min": 4, "log2_max": 8}
    places = [claim.place(scale, window) for scale in (3, 4, 8, 9)]
    assert places == ["below", "inside", "inside", "above"]
    assert claim.place(3, None) is None


def test_underflow_by_layer_is_the_mean_of_the_seeds_that_have_weights_left():
    scaling = Scaling(NONE)
    lost = [look(0, 0.02, 0.3), look(60, None, None)]
    runs = [made_run(scaling, 0), made_run(scaling, 1, gradient=lost)]
    found = failure.by_layer(runs)
    assert found["steps"] == [0, 60]
    assert found["layers"] == {"convolution1": [0.4, 0.5], "convolution2": [0, 0]}
    assert found["all"] == [0.4, 0.5]
    assert failure.by_layer(runs[1:])["all"] == [0.3, None]


def drawn_lines(drawing):
    return [line for axes in drawing[0].axes for line in axes.get_lines()]


def test_the_picture_of_scales_has_each_step_and_each_skip():
    moving, static = Scaling(DYNAMIC, 24, 200), Scaling(STATIC, 4)
    run = made_run(moving, changes=((1, 24.0), (3, 23.0)), skips=(2,))
    panel = scale_picture.Panel("detector", [(static, made_run(static)), (moving, run)])
    lines = drawn_lines(scale_picture.draw([panel]))
    assert [list(line.get_xdata()) for line in lines] == [[1, 240], [1, 3, 240], [2]]
    assert [list(line.get_ydata()) for line in lines] == [[4, 4], [24, 23, 23], [24]]


def test_the_pictures_of_a_failure_leave_out_what_is_not_finite():
    scalings = [Scaling(FLOAT32), Scaling(NONE)]
    titles = {scaling.name: scaling.title for scaling in scalings}
    runs = [
        made_run(scalings[0]),
        made_run(scalings[1], losses=[0.3, None, None], non_finite_from=11),
    ]
    lines = drawn_lines(failure_pictures.losses(WORKLOAD, titles, runs, constant_loss=0.25))
    heights = [list(line.get_ydata()) for line in lines]
    assert heights == [[0.25, 0.25], [0.2, 0.1, 0.05], [0.3], [0.3]]
    lost = made_run(scalings[1], gradient=[look(0, 0.02), look(60, None, None)])
    drawing = failure_pictures.underflow(WORKLOAD, titles, {"none": failure.by_layer([lost])})
    (line,) = drawn_lines(drawing)
    assert list(line.get_ydata()) == [50, 0]


def test_the_picture_of_the_claim_has_each_scale():
    scalings = [Scaling(FLOAT32), Scaling(STATIC, 4), Scaling(STATIC, 28)]
    cells = [Cell(WORKLOAD, scaling, 0) for scaling in scalings]
    rows = comparison.table(cells, [made_run(scaling) for scaling in scalings])
    rows[1]["error_at_first_step"] = {"mean": 0.02}
    rows[2] |= {"error_at_first_step": None, "gradient_error": None}
    points = [{"log2_scale": n, "relative_error": e} for n, e in ((0, 0.3), (4, 0.02), (28, None))]
    window = {"log2_min": 4, "log2_max": 20}
    first = {"window": window, "points": points, "compiled_points": points[1:]}
    measured = {"looks": [first], "common": None}
    lines = drawn_lines(claim_picture.draw(WORKLOAD, measured, rows))
    assert [list(line.get_xdata()) for line in lines[:4]] == [[0, 4], [4], [4], [4]]
    assert list(lines[-2].get_xdata()) == [4, 28]
