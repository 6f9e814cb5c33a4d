"""What is advised of planted windows, and that the trainer takes its flags."""

from __future__ import annotations

import re

import pytest

from tests.messages import says
from tfamp.diagnosis import advice
from tfamp.diagnosis.cure import Cure
from tfamp.diagnosis.layer_windows import Windows
from tfamp.run import flags
from tfamp.run.fidelity import Window
from tfamp.run.scale_rules import ScaleRules


def windows(low=None, high=None, is_open=False, finite=None, why=None):
    window = None if low is None else Window(log2_min=low, log2_max=high, is_open=is_open)
    if finite is None:
        finite = {
            k: high is not None and (is_open or k <= high) for k in range(min(low or 0, 0), 25)
        }
    return Windows({}, window, why, None, {}, finite)


def advised(found, float32=(), cured=None):
    return advice.advice(found, Cure(tuple(float32), cured or found))


@pytest.mark.parametrize(
    ("low", "high", "is_open", "static", "initial", "skips"),
    [
        (4, 20, False, 12, 18, 0),
        (4, 11, False, 7, 9, 4),
        (4, 5, False, 4, 4, 10),
        (0, 24, True, 12, 15, 0),
        (18, 24, True, 21, 18, 0),
        (-7, -3, False, -5, -5, 18),
    ],
)
def test_scales_in_a_window(low, high, is_open, static, initial, skips):
    found = advised(windows(low, high, is_open))
    assert found.static_scale == 2.0**static
    assert found.initial_scale == 2.0**initial
    assert found.expected_skips == skips


def test_skips_between_scales_that_were_not_tried_are_not_known():
    found = windows(0, 8, finite={0: True, 8: True, 16: False})
    assert advised(found).expected_skips is None
    assert advised(windows(finite={0: False}, why="x")).expected_skips is None


def test_a_window_below_the_floor_of_a_dynamic_scale_moves_the_floor():
    found = advised(windows(-20, -16))
    assert found.initial_scale == 2.0**-18 < ScaleRules.min_scale
    given = dict(flag.lstrip("-").split("=") for flag in found.flags)
    ScaleRules(
        initial_scale=float(given["initial_loss_scale"]), min_scale=float(given["min_loss_scale"])
    )


def test_flags_are_the_trainers():
    found = advised(windows(why="a contradicts b"), ["net/block (1)/conv.a,b"], windows(4, 20))
    assert found.float32_layers == ("net/block (1)/conv.a,b",)
    config = flags.config_from_arguments(found.flags)
    (pattern,) = config.float32_layers
    assert re.search(pattern, "net/block (1)/conv.a,b")
    assert not re.search(pattern, "net/block (1)/conv.a,b/inner")
    assert not re.search(pattern, "net/block (1)/convxa,b")
    assert (config.loss_scale, config.initial_loss_scale) == ("dynamic", 2.0**18)


def test_what_is_said():
    assert says(advised(windows(4, 11)).summary, "128", "512", "32768", "4 steps")
    assert says(advised(windows(4, 20)).summary, "4096", "262144")
    cured = advised(windows(why="a contradicts b"), ["a"], windows(4, 20))
    assert says(cured.summary, "a in float32")
    lost = advised(windows(why="a contradicts b"), ["a"], windows(why="a contradicts b"))
    assert says(lost.summary, "a contradicts b", "not enough")
    assert lost.static_scale is lost.initial_scale is None
