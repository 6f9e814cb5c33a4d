"""A loss scale that is chosen before the first step: by whom, where it starts, what it changes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.e2e.short_runs import SHORT, TINY, weights_of
from tests.marks import slow
from tests.messages import naming, says
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.errors import InputError
from tfamp.run.fidelity import Window
from tfamp.run.resolve import resolve
from tfamp.run.result import AutoScale
from tfamp.training import trainer

WINDOW = Window(log2_min=2, log2_max=12, is_open=False)


def advising(initial, window=WINDOW, why=None, seen=None):
    """Advises so, having looked at the first batch as an advisor does."""

    def advise(run):
        images, _ = next(iter(run.data.train))
        run.model(images, training=False)
        if seen is not None:
            seen.append((np.array(images), run))
        return AutoScale(initial=initial, window=window, why=why)

    return advise


def train(logdir, advise=None, say=lambda line: None, **changes):
    values = SHORT | {"model": TINY, "policy": "mixed_float16", "logdir": str(logdir)} | changes
    done = trainer.train(resolve(Config(**values)), ["train"], say=say, asked={}, advise=advise)
    config = json.loads(done.directory.config.read_text())
    return done, config, records.read_rows(done.directory.metrics)


def figures(rows):
    return [
        {name: value for name, value in row.items() if name.split("/")[0] not in TIMES}
        for row in rows
    ]


TIMES = ("time", "throughput", "memory")


@pytest.mark.parametrize("loop", ["fit", slow("custom")])
def test_it_trains_as_from_the_same_initial_scale(loop, tmp_path):
    changes = {"loop": loop, "deterministic": False, "augment": "flip_crop"}
    seen = []
    chosen, config, rows = train(
        tmp_path / "auto", advising(128.0, seen=seen), loss_scale="auto", **changes
    )
    given, _, same = train(tmp_path / "given", initial_loss_scale=128.0, **changes)
    assert figures(rows) == figures(same)
    ours, theirs = weights_of(chosen.built), weights_of(given.built)
    assert list(ours) == list(theirs)
    for path, weight in ours.items():
        np.testing.assert_array_equal(weight, theirs[path])
    # What it looked at is what the first step trained on.
    first = next(iter(given.built.data.train))[0]
    np.testing.assert_array_equal(seen[0][0], first)
    assert config["config"]["loss_scale"] == "auto"
    assert config["config"]["initial_loss_scale"] == 128.0
    assert config["auto_loss_scale"] == {
        "initial": 128.0,
        "window": {"log2_min": 2, "log2_max": 12, "is_open": False},
        "why": None,
    }
    scale = json.loads(chosen.directory.result.read_text())["loss_scale"]
    assert scale["auto"] == config["auto_loss_scale"]
    assert (scale["mode"], scale["initial"], scale["stayed_in_window"]) == ("dynamic", 128.0, True)


def test_a_scale_that_leaves_the_window_is_told(tmp_path):
    changes = {"loss_scale": "auto", "loss_scale_growth_steps": 1}
    done, _, _ = train(tmp_path, advising(2.0**11), **changes)
    scale = done.result.figures.loss_scale
    assert (scale.max, scale.stayed_in_window) == (2.0**15, False)


@pytest.mark.parametrize(
    ("bound", "advised", "initial"),
    [("max_loss_scale", 2.0**20, 512.0), slow("min_loss_scale", 2.0, 512.0)],
)
def test_floor_and_ceiling_hold_for_what_is_advised(bound, advised, initial, tmp_path):
    lines = []
    done, config, _ = train(
        tmp_path, advising(advised, why="Because."), lines.append, loss_scale="auto",
        **{bound: initial},
    )  # fmt: skip
    assert done.built.optimizer.initial_scale == initial
    why = config["auto_loss_scale"]["why"]
    assert says(why, "Because.", f"{advised:.0f}", f"--{bound}=512")
    said = "\n".join(lines)
    assert says(said, "512", "2^2 to 2^12", why)


def test_without_a_window_the_reason_is_told(tmp_path):
    lines = []
    done, _, _ = train(
        tmp_path, advising(2.0**15, None, "a and b contradict."), lines.append, loss_scale="auto"
    )
    assert says("\n".join(lines), "32768", "a and b contradict.")
    scale = done.result.figures.loss_scale
    assert scale.auto.window is scale.stayed_in_window is None


def test_nobody_is_asked_without_it(tmp_path):
    def never(run):
        raise AssertionError

    _, config, _ = train(tmp_path, never)
    assert "auto_loss_scale" not in config


def test_somebody_must_say(tmp_path):
    with pytest.raises(ValueError, match=naming("loss_scale='auto'", "advise")):
        train(tmp_path, loss_scale="auto")


def test_what_the_adviser_refuses_leaves_nothing(tmp_path):
    def refuse(run):
        raise InputError("The loss is NaN.")

    with pytest.raises(InputError, match="NaN"):
        train(tmp_path / "logs", refuse, loss_scale="auto")
    assert not (tmp_path / "logs").exists()
