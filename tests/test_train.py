"""What the command that trains says at the end of a run, figure for figure."""

import contextlib
import types

import pytest

from tests.messages import says
from tfamp import train
from tfamp.diagnosis import advice, probe
from tfamp.run.config import Config
from tfamp.run.fidelity import Advice, Window
from tfamp.run.result import RunResult

RESULT = {
    "schema_version": 1,
    "status": "completed",
    "error": None,
    "policy": "mixed_float16",
    "loop": "fit",
    "model": "resnet20",
    "dataset": "synthetic",
    "seed": 0,
    "epochs": 4,
    "steps_attempted": 80,
    "steps_applied": 77,
    "validation_accuracy": 0.8125,
    "validation_loss": 0.5,
    "train_loss": 0.25,
    "epoch_time_sec": [40.0, 12.5, 90.0, 11.25],
    "first_call_sec": 30.0,
    "step_time_ms": {"median": 20.0, "p95": 50.0, "n": 79},
    "examples_per_sec": 3200.0,
    "device_peak_bytes": 3 * 2**20,
    "host_peak_rss_bytes": 2**30,
    "loss_scale": {"mode": "dynamic", "initial": 1024.0, "final": 256.0, "min": 128.0,
                   "max": 2048.0, "skipped": 3, "first_skips": [1, 2, 3]},
    "non_finite": None,
    "tf32": False,
    "jit_compile": True,
    "device": "GPU:0 (a card)",
    "versions": {},
}  # fmt: skip


def summary(**values):
    """Its lines by what they begin with."""
    lines = train.summary(RunResult.from_json(RESULT | values), "runs/mine").split("\n")
    said = {line[2:22].strip(): line[22:].strip() for line in lines[1:]}
    return lines[0], said


def test_a_summary_has_the_runs_own_figures():
    first, said = summary()
    assert first == "resnet20 under mixed_float16, fit loop: completed"
    assert said["validation accuracy"] == "81.25 %"
    # The last one: the first compiled, and one in between was held up.
    assert said["epoch time"].startswith("11.") and said["epoch time"].endswith("(first 40.0 s)")
    assert said["step time"] == "20.0 ms median, 50.0 ms p95, 3200 examples/s"
    assert said["GPU:0 peak memory"].endswith("3 MiB")
    assert said["loss scale"] == "1024 -> 256 (dynamic), 3 of 80 steps skipped"
    assert said["files"] == "runs/mine"


def test_a_summary_says_whether_a_chosen_scale_stayed_in_its_window():
    window = {"log2_min": 7, "log2_max": 11, "is_open": False}
    auto = {"initial": 1024.0, "window": window, "why": None}
    scale = RESULT["loss_scale"] | {"auto": auto, "stayed_in_window": True}
    _, said = summary(loss_scale=scale)
    assert said["loss scale"] == "1024 -> 256 (dynamic, auto), 3 of 80 steps skipped"
    assert said["safe window"] == "2^7 to 2^11; the scale stayed inside: 128 to 2048"
    _, said = summary(loss_scale=scale | {"stayed_in_window": False})
    assert said["safe window"] == "2^7 to 2^11; the scale left it: 128 to 2048"
    _, said = summary(loss_scale=scale | {"auto": auto | {"window": None, "why": "a and b."}})
    assert said["safe window"] == "none: a and b."


@pytest.mark.parametrize("window", [None, Window(log2_min=2, log2_max=9, is_open=False)])
def test_what_the_advisor_finds_is_where_a_run_starts(window, monkeypatch):
    asked, probes = [], []

    def advise(model, probe, batch, say):
        say("a pass")
        asked.append((model, batch))
        why = None if window else "a needs 2^9, b overflows above 2^3"
        found = Advice(
            static_scale=8.0, initial_scale=64.0, expected_skips=0, float32_layers=("a",),
        )  # fmt: skip
        return advice.Advised(window, why, found)

    monkeypatch.setattr(advice, "advise", advise)

    def opened(*arguments, **more):
        probes.append((arguments, more))
        return contextlib.nullcontext()

    monkeypatch.setattr(probe, "Probe", opened)
    run = types.SimpleNamespace(
        model="the model",
        data=types.SimpleNamespace(train=["first batch", "second batch"]),
        config=Config(seed=7, jit_compile=True, loss_scale="auto", initial_loss_scale=1024.0),
    )
    found = train.advised_scale(run)
    assert asked == [("the model", "first batch")]
    # The compiled loss, compiled as the run is.
    assert probes == [(("the model", None), {"seed": 7, "jit_compile": True})]
    if window is None:
        assert (found.initial, found.window) == (1024.0, None)
        assert says(found.why, "a needs 2^9", "default")
    else:
        assert (found.initial, found.window, found.why) == (64.0, window, None)


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"step_time_ms": None, "examples_per_sec": None}, "step time"),
        ({"device_peak_bytes": None}, "GPU:0 peak memory"),
        ({"loss_scale": None}, "loss scale"),
    ],
)
def test_what_was_not_measured_has_no_line(values, missing):
    _, said = summary(**values)
    assert missing not in said
    assert len(said) == len(summary()[1]) - 1
