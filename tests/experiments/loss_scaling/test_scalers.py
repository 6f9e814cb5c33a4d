"""Three scalers on the same gradients; the committed file is what they do."""

import json
from pathlib import Path

import pytest

from experiments.loss_scaling import scalers
from tests.messages import says

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "experiments" / "results" / "loss_scaling" / "scalers.json"


def test_a_scale_that_overflows_settles_and_comes_back():
    stream = scalers.Stream(13, lambda step, scale: scale > 2.0**13, growth_steps=4)
    # Down in two skips, up after four clean steps, down, up, down.
    expected = {"skipped": 4, "moves": 6, "last_move": 12, "last_scale": 2.0**13}
    for scaler in ("tfamp", "keras"):
        found = scalers.run(scaler, stream)
        assert {name: found[name] for name in expected} == expected
        assert found["weight"] == pytest.approx(1.0 - 9 * 0.5e-3)


def test_what_is_committed_is_of_every_scaler_and_stream():
    results = json.loads(COMMITTED.read_text())["results"]
    assert list(results) == list(scalers.STREAMS)
    for name, stream in scalers.STREAMS.items():
        assert results[name]["steps"] == stream.steps
        assert sorted(results[name]) == sorted((*scalers.SCALERS, "steps"))


@pytest.mark.slow
@pytest.mark.parametrize("stream", scalers.STREAMS)
@pytest.mark.parametrize("scaler", ["tfamp", "keras"])
def test_what_is_committed_is_what_they_do(stream, scaler):
    committed = json.loads(COMMITTED.read_text())["results"][stream][scaler]
    assert scalers.run(scaler, scalers.STREAMS[stream]) == committed


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--scalers=apex", ("'apex'", "tfamp", "keras", "torch")),
        ("--out=/absent/x.json", ("--out=/absent/x.json", "JSON")),
        ("more", ("'more'",)),
    ],
)
def test_bad_input_is_one_message(argument, expected, capsys):
    assert scalers.main([argument]) == 2
    told = capsys.readouterr()
    assert says(told.err.splitlines()[0], "tfamp:", *expected) and not told.out
