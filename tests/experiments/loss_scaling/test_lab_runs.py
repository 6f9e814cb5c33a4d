"""A run of the lab: what its scale did, how it ended, and what was measured of its gradient."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from experiments.loss_scaling import __main__ as lab
from experiments.loss_scaling import (
    claim,
    failure,
    gradient_error,
    results_file,
    strategies,
    training,
)
from experiments.loss_scaling.scalings import AUTO, DYNAMIC, FLOAT32, NONE, STATIC, Scaling
from experiments.loss_scaling.workloads import Classifier, Detector

ROOT = Path(__file__).parents[3]
TINY = dataclasses.replace(Detector(), **Detector.QUICK)


def over_time(logs, skips):
    """What is told of a scale, given by its logarithms and the steps, from 0, that were skipped."""
    total = np.cumsum([step in skips for step in range(len(logs))])
    return training.scale_over_time(2.0 ** np.array(logs, float), total)


@pytest.mark.parametrize(
    ("logs", "skips", "settled_after"),
    [
        ([15] * 6, [], 0),  # Never moved.
        ([24, 23, 22, 21, 21, 21], [0, 1, 2], 2),  # 22 and 21 are within a factor of two.
        ([8, 8, 9, 9, 10, 10], [], None),  # Still on its way up.
        ([8, 9, 10, 11, 10, 10, 11, 10], [3, 6], 2),
        ([28] * 6, range(6), None),  # Nothing was applied.
        ([28, 27, 26, 25, 24, 23], range(6), None),
        ([15], [], 0),
    ],
)
def test_when_a_scale_has_settled(logs, skips, settled_after):
    assert over_time(logs, skips)["settled_after"] == settled_after


def test_what_is_told_of_a_scale():
    told = over_time([24, 24, 23, 23, 24, 22], [1, 4])
    assert told | {"settled_after": None} == {
        "log2_initial": 24, "log2_final": 22, "log2_min": 22, "log2_max": 24,
        "grew": 1, "fell": 2, "settled_after": None,
        "changes": [[1, 24], [3, 23], [5, 24], [6, 22]],
    }  # fmt: skip


def test_a_run_tells_of_its_steps_and_of_its_gradient():
    run = training.run(TINY, Scaling(NONE), seed=1)
    assert (run["ended_by"], run["steps"], run["skips"]) == (training.COMPLETED, 3, 0)
    assert run["scale"]["changes"] == [[1, 0.0]]
    assert run["first_loss"] == pytest.approx(np.mean(run["losses"]), rel=1e-3)
    look = run["gradient"][0]
    assert look["step"] == 0 and look["log2_scale"] == 0
    assert list(look["underflow_by_layer"]) == [f"convolution{n}" for n in range(1, 7)]
    assert look["underflow"] > 0.3
    assert run["gradient_error"] == look["relative_error"] > 0


@pytest.mark.slow
def test_the_same_weights_and_batches_for_every_scaling():
    scalings = (Scaling(FLOAT32), Scaling(STATIC, 12), Scaling(DYNAMIC, 24, 200, 2))
    runs = [training.run(TINY, scaling, seed=1) for scaling in scalings]
    for run in runs:
        assert run["first_loss"] == pytest.approx(runs[0]["first_loss"], rel=1e-3)
    assert runs[0]["gradient"] == [] and runs[0]["gradient_error"] is None
    assert all(run["gradient"][0]["underflow"] < 0.1 for run in runs[1:])


@pytest.mark.slow
def test_auto_begins_where_the_advisor_says():
    workload = dataclasses.replace(TINY, batch_size=8, filters=8)
    run = training.run(workload, Scaling(AUTO), seed=0)
    assert 8 <= run["scale"]["log2_initial"] <= 24
    assert run["skips"] == 0


@pytest.mark.slow
def test_a_static_scale_beyond_every_wall_skips_until_it_collapses(monkeypatch):
    monkeypatch.setattr(training, "BLOCK", 1)
    workload = dataclasses.replace(TINY, num_steps=260, look_every=1)
    looks = []
    run = training.run(
        workload, Scaling(STATIC, 120), seed=0, look=lambda step, *_: looks.append(step)
    )
    # More than 200 skips in a row: rule 5 of the loss scaler.
    assert (run["ended_by"], run["steps"], run["skips"]) == (training.COLLAPSE, 201, 201)
    assert "201" in run["message"]
    assert run["scale"]["settled_after"] is None
    assert looks[:3] == [0, 1, 2]


def test_a_scaling_makes_the_optimizer_that_it_names():
    inner = keras.optimizers.SGD(0.1)
    scaling = Scaling(DYNAMIC, 8, growth_steps=200, hysteresis=2)
    assert scaling.name == "dynamic from 2^8, growth 200, hysteresis 2"
    rules = scaling.optimizer(inner, history=5).rules
    assert (rules.initial_scale, rules.dynamic_growth_steps, rules.hysteresis) == (256, 200, 2)
    static = Scaling(STATIC, 4).optimizer(keras.optimizers.SGD(0.1), history=5)
    assert not static.dynamic and static.scale == 16
    none = Scaling(NONE).optimizer(keras.optimizers.SGD(0.1), history=5)
    assert not none.is_scaling


def test_errors_and_underflow_are_counted_to_the_entry():
    scaled = [np.array([2.0, 0.0], "float16"), np.array([[np.inf, 6.0]], "float16")]
    reference = [np.array([1.0, 1e-9]), np.array([[4.0, 3.0]])]
    found = gradient_error.compared(zip(scaled, reference, strict=True), scale=2.0)
    assert found.relative_error is None
    assert (found.underflow_fraction, found.non_finite_fraction) == (0.25, 0.25)
    finite = gradient_error.compared([(scaled[0], np.array([1.0, 1.0]))], scale=2.0)
    assert finite.relative_error == pytest.approx(1 / np.sqrt(2))


def test_nothing_is_told_of_weights_that_are_not_finite():
    model = TINY.build()
    model.set_weights([np.full(weight.shape, np.nan) for weight in model.get_weights()])
    found = gradient_error.measure(model, next(TINY.batches(0)), 1.0)
    assert set(found.values()) == {None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "pictures"),
    [
        ("strategies", ["scale_over_time.png"]),
        ("failure", ["failure.png", "underflow_by_layer.png"]),
        ("claim", ["claim.png"]),
    ],
)
def test_a_part_makes_its_results_and_then_keeps_them(part, pictures, tmp_path, capsys):
    arguments = [part, "--quick", f"--out={tmp_path}"]
    assert lab.main(arguments) == 0
    told = json.loads((tmp_path / f"{part}.json").read_text())
    assert [one["file"] for one in told["pictures"]] == pictures
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{part}.json", *pictures])
    assert all(row["score"]["n"] == 1 for row in told["table"])
    capsys.readouterr()
    assert lab.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("was there") == len(told["table"])
    assert json.loads((tmp_path / f"{part}.json").read_text()) == told


def test_committed_results_are_of_the_runs_that_the_lab_makes():
    for part, workloads in (
        (strategies, [Detector(), Classifier()]),
        (claim, [Detector()]),
    ):
        told = json.loads((ROOT / results_file.FOLDER / part.FILE).read_text())
        assert told["schema_version"] == results_file.SCHEMA_VERSION
        assert told["settings"]["workloads"] == [each.settings() for each in workloads]
    told = json.loads((ROOT / results_file.FOLDER / strategies.FILE).read_text())
    names = [(row["workload"], row["scaling"]) for row in told["table"]]
    assert names == [
        (workload, scaling.name)
        for workload in ("detector", "resnet20")
        for scaling in strategies.SCALINGS
    ]


def test_what_the_committed_failure_shows():
    told = json.loads((ROOT / results_file.FOLDER / failure.FILE).read_text())
    scores = {(row["workload"], row["scaling"]): row["score"] for row in told["table"]}
    float32, none, dynamic = (scores["detector", each.name] for each in failure.SCALINGS)
    # Every seed: without a scale less than half of what each finds with one, or in float32.
    assert none["high"] < float32["low"] / 2 and none["high"] < dynamic["low"] / 2
    lost = told["underflow_by_layer"]
    assert min(lost["none"]["all"][1:]) > 0.99 > 0.1 > max(lost["dynamic from 2^15"]["all"][1:])


def test_what_the_committed_claim_shows():
    told = json.loads((ROOT / results_file.FOLDER / claim.FILE).read_text())
    rows = {row["settings"]["log2_scale"]: row for row in told["table"]}
    float32 = rows.pop(None)["score"]
    (advised,) = [row for row in rows.values() if row["is_advised"]]
    assert advised["place_in_common_window"] == advised["place_in_first_window"] == "inside"
    # As good as float32 in each seed, within what seeds differ by.
    assert abs(advised["score_minus_float32"]["mean"]) < float32["high"] - float32["low"]
    above = [row for row in rows.values() if row["place_in_first_window"] == "above"]
    assert above and all(row["score"]["high"] < float32["low"] / 2 for row in above)
    # The error below the lower wall is the predicted one, within what seeds differ by.
    for row in rows.values():
        if row["place_in_first_window"] == "below":
            assert 0.5 < row["error_at_first_step"]["mean"] / row["predicted_error"] < 2
