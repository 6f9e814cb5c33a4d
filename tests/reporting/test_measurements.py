"""What is measured of one run: exact, from what its result.json says."""

import json

import pytest
from made_runs import write_run

from tfamp.reporting import measurements, runs


def measured(tmp_path, name, **values):
    """One measurement of a run whose result.json says so."""
    folder = write_run(tmp_path, policy="float32")
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return measurements.MEASUREMENTS[name](runs.read(folder, "run"))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # The first compiles; of the others the median: neither their last, largest nor mean.
        ([90.0, 3.0, 1.0, 7.0, 2.0, 9.0], 3.0),
        ([90.0, 3.0, 1.0], 2.0),
        ([90.0, 3.0], 3.0),
        ([90.0], 90.0),
        ([], None),
    ],
)
def test_an_epoch_takes_the_median_of_those_that_compiled_nothing(tmp_path, seconds, expected):
    found = measured(tmp_path, "epoch_time_sec", epochs=len(seconds), epoch_time_sec=seconds)
    assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("step_time_ms", 20.0), ("step_time_p95_ms", 50.0), ("examples_per_sec", 3200.0)],
)
def test_steps_are_told_as_they_were_timed(tmp_path, name, expected):
    timed = {"step_time_ms": {"median": 20.0, "p95": 50.0, "n": 99}, "examples_per_sec": 3200.0}
    assert measured(tmp_path, name, **timed) == expected


@pytest.mark.parametrize(
    "name",
    ["first_call_sec", "device_peak_bytes", "host_peak_rss_bytes", "validation_accuracy",
     "validation_loss", "train_loss"],
)  # fmt: skip
def test_a_figure_is_that_of_its_own_name(tmp_path, name):
    assert measured(tmp_path, name, **{name: 7}) == 7
