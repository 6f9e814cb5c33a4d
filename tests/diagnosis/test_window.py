"""Windows of planted curves: walls, valleys, luck, overflow."""

from __future__ import annotations

import math

import pytest

from tfamp.diagnosis.window import Curve, apart, bounds_of, extends_below, window_of
from tfamp.run.fidelity import Window


def curve(*errors, first=0, **more):
    return Curve({first + i: error for i, error in enumerate(errors)}, **more)


def found(*errors, **more):
    window = window_of(curve(*errors, **more))
    return window and (window.log2_min, window.log2_max, window.is_open)


def wall(scales, floor, first_clean):
    """The rounding error of subnormal numbers halves with each doubling of the scale."""
    return [math.hypot(floor, floor * 2.0 ** (first_clean - k)) for k in range(scales)]


def test_a_wall_a_valley_and_a_wall():
    # At 2^2 the error is 11.8 % above the floor, at 2^3 3.1 %.
    errors = [*wall(12, floor=0.1, first_clean=1), None, None]
    assert [round(e / 0.1, 3) for e in errors[1:4]] == [1.414, 1.118, 1.031]
    assert found(*errors) == (3, 11, False)
    assert found(*wall(12, floor=0.1, first_clean=1)) == (3, 11, True)


def test_the_valley_may_begin_at_any_exponent():
    assert found(0.5, 0.1, 0.1, None, first=-9) == (-8, -7, False)


def test_scales_need_not_be_neighbours():
    assert window_of(Curve({0: 0.9, 8: 0.1, 16: 0.1, 24: None})) == Window(log2_min=8, log2_max=16)


def test_nothing_finite_has_no_window():
    assert found(None, None) is None


def test_a_valley_of_one_scale():
    assert found(0.9, 0.5, 0.2, None) == (2, 2, False)


def test_a_lucky_scale_is_not_the_floor_of_the_others():
    assert found(3.0, 1.7, 0.7, 0.85, 0.92, 0.96, 0.98, 1.0, 1.0, 1.0, None) == (2, 9, False)


def test_a_lucky_scale_apart_from_the_valley_is_not_the_window():
    # A normalisation's gamma, measured: at 2^0 what underflowed cancelled by chance.
    slope, plateau = [4.09e-4, 5.87e-4, 5.25e-4, 4.41e-4, 4.56e-4, 4.62e-4], [4.67e-4] * 15
    assert found(*slope, *plateau, None) == (3, 20, False)


def test_of_two_runs_as_long_the_better_one_is_the_window():
    assert found(1.05, 1.0, 1.9, 1.06, 1.07, None) == (0, 1, False)


def test_a_bump_of_luck_does_not_cut_the_window():
    assert found(4.0, 1.0, 1.0, 1.105, 1.0, 1.0, None) == (1, 5, False)


def test_a_bump_that_is_no_luck_does():
    assert found(4.0, 1.0, 1.0, 1.0, 1.6, 1.0) == (1, 3, False)


def test_an_error_that_grows_without_overflow_ends_the_window():
    assert found(2.0, 1.0, 1.0, 1.0, 1.0, 1.3, 1.5, 1.9) == (1, 4, False)


def test_an_overflow_between_two_valleys_ends_the_window():
    assert found(0.5, 0.1, None, 0.1, 0.1) == (1, 1, False)
    assert found(0.5, None, 0.1, 0.1) == (2, 3, True)


def test_total_underflow_is_no_valley():
    assert found(1.0, 1.0, 1.0, 1.0, 0.95, 0.8, None) == (5, 5, False)


@pytest.mark.parametrize(("slack", "expected"), [(0.0, (2, 3)), (2e-6, (0, 3))])
def test_what_float32_has_too_is_no_wall(slack, expected):
    assert found(3e-6, 2e-6, 1e-6, 1e-6, slack=slack) == (*expected, True)


def test_exact_gradients_have_no_wall():
    assert found(0.0, 0.0, 0.0) == (0, 2, True)
    assert found(0.25, 0.0, 0.0, None) == (1, 2, False)


def test_a_layer_whose_error_does_not_count_is_only_finite():
    assert found(1.0, 7.0, 0.1, None, is_held=False) == (0, 2, False)


def window(low, high, is_open=False):
    return Window(log2_min=low, log2_max=high, is_open=is_open)


def test_a_models_window_is_what_lies_in_all():
    bounds = bounds_of({"a": window(0, 24, True), "b": window(3, 12), "c": window(5, 20)})
    assert bounds == (window(5, 12), "c", "b", 5, 12)
    assert bounds_of({"a": window(0, 24, True)}).window == window(0, 24, True)
    assert bounds_of({"a": window(0, 24, True), "b": window(0, 24)}).window == window(0, 24)


def test_layers_that_contradict_each_other_are_named():
    bounds = bounds_of({"a": window(0, 8), "b": window(16, 24, True), "c": window(2, 20)})
    assert bounds == (None, "b", "a", 16, 8)


def test_no_layer_takes_part():
    assert bounds_of({}).window is None


def test_the_fewest_layers_that_stand_apart():
    windows = {"a": window(0, 8), "b": window(16, 24), "c": window(12, 20), "d": window(0, 24)}
    assert apart(windows) == ("a",)
    assert apart({"a": window(0, 8), "b": window(16, 24)}) == ("b",)
    assert apart({"d": window(0, 24)}) == apart({}) == ()


def test_when_scales_below_are_tried():
    assert not extends_below([0, 1, 2], {0: True, 1: True, 2: False})
    assert extends_below([0, 1, 2], {0: True, 1: False, 2: False})
    assert extends_below([0], {0: False})
