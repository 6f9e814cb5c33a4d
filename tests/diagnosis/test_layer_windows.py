"""Windows of planted layers: the model's, and the reasons where there is none."""

from __future__ import annotations

import pytest

from tests.diagnosis.planted_sweep import planted, tally
from tests.messages import says
from tfamp.diagnosis.layer_windows import windows
from tfamp.diagnosis.sweep import HALF, SINGLE
from tfamp.run.fidelity import Window


def window(low, high, is_open=False):
    return Window(log2_min=low, log2_max=high, is_open=is_open)


def found(sweep, *paths, overflowing=None):
    return windows(sweep, paths or ("a", "b"), overflowing)


def test_a_models_window_is_what_lies_in_all_layers():
    all_of = found(planted(a=[0.9, 0.1, 0.1, 0.1, None], b=[0.9, 0.9, 0.1, 0.1, 0.1]))
    assert all_of.layers["a"].window == window(1, 3)
    assert all_of.layers["b"].window == window(2, 4, True)
    assert (all_of.window, all_of.why) == (window(2, 3), None)


def test_layers_that_contradict_each_other():
    all_of = found(planted(a=[0.1, 0.1, None, None], b=[0.9, 0.9, 0.5, 0.1]))
    assert all_of.window is None
    assert says(all_of.why, "b", "2^3", "a", "2^1")


def test_an_activation_gradient_that_overflows_ends_a_layers_window():
    all_of = found(planted(a=([0.1] * 3, [0.1, 0.1, None])), "a")
    assert all_of.layers["a"].window == window(0, 1)


def test_a_layer_without_weights_has_its_activations_window():
    all_of = found(planted(a=(None, [0.9, 0.1, 0.1])), "a")
    assert all_of.layers["a"].window == window(1, 2, True)


def test_with_weights_the_activations_error_does_not_count():
    all_of = found(planted(a=([0.1] * 3, [0.9, 0.1, 0.1])), "a")
    assert all_of.layers["a"].window == window(0, 2, True)


def test_a_gradient_of_zero_has_no_window_but_must_be_finite():
    sweep = planted(a=[0.1, 0.1, 0.1, 0.1], b=[1.0, 1.0, None, None])
    zero = tally(0)._replace(reference_squares=1e-34, squared_error=1e-8)
    for setting in ((HALF, 0), (HALF, 1)):
        sweep.weights[setting]["b"] = zero
    sweep.weights[SINGLE]["b"] = zero._replace(squared_error=1e-16)
    all_of = found(sweep)
    assert all_of.layers["b"] == (None, "its gradient is zero up to rounding")
    assert all_of.window == window(0, 1)


def test_a_gradient_that_float16_never_has_does_not_count():
    all_of = found(planted(a=[0.9, 0.1, 0.1], b=[1.0, 5.0, 5.0]))
    assert says(all_of.layers["b"].why, "float16", "1", "at best")
    assert all_of.window == window(1, 2, True)


def test_a_layer_that_is_not_reached():
    all_of = found(planted(a=[0.1, 0.1]), "a", "c")
    assert says(all_of.layers["c"].why, "does not depend")
    assert all_of.window == window(0, 1, True)


@pytest.mark.parametrize("overflowing", [None, "b"])
def test_a_layer_that_no_scale_keeps_finite(overflowing):
    all_of = found(planted(a=[0.1, 0.1], b=[None, None]), overflowing=overflowing)
    assert all_of.window is None
    assert says(all_of.why, "b:")
    assert ("2^0 to 2^1" in all_of.why) == (overflowing is None)
    assert ("way forward" in all_of.why) == (overflowing is not None)
    assert all_of.finite == {0: False, 1: False}


def test_what_float32_has_too_is_no_wall():
    all_of = found(planted(a=[4e-7, 3e-7, 3e-7]), "a")
    assert all_of.window == window(0, 2, True)
