"""The rules of a loss scale refuse what the driver's flags refuse, by the same ranges."""

import dataclasses
import math
import re

import pytest

from tests.messages import naming
from tfamp.run.ranges import Range, whole
from tfamp.run.scale_rules import RANGES, ScaleRules

SCALES = ("initial_scale", "min_scale", "max_scale")


def test_the_defaults_are_in_range():
    rules = ScaleRules()
    for name, allowed in RANGES.items():
        assert allowed.why_not(getattr(rules, name)) is None, name
    assert set(RANGES) == {field.name for field in dataclasses.fields(rules)} - {"dynamic"}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, -1.0, 1e39, 1e-40, 2.0**127])
def test_scales_that_float32_does_not_hold_or_cannot_double(name, value):
    for dynamic in (True, False):
        with pytest.raises(ValueError, match=naming(f"{name}=", "2^-126", "2^127")):
            ScaleRules(**{name: value}, dynamic=dynamic)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("growth_factor", 1.0),
        ("growth_factor", math.inf),
        ("growth_factor", math.nan),
        ("growth_factor", 1e39),
        ("backoff_factor", 0.0),
        ("backoff_factor", 1.0),
        ("backoff_factor", 1e-40),
        ("dynamic_growth_steps", 0),
        ("dynamic_growth_steps", None),
        ("dynamic_growth_steps", 1.5),
        ("dynamic_growth_steps", 2**31),
        ("hysteresis", 0),
        ("max_skipped_in_a_row", 0),
        ("recovery_steps", -1),
        ("recovery_steps", math.inf),
    ],
)
def test_rules_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"^{name}={re.escape(str(value))}"):
        ScaleRules(**{name: value})


def test_no_limit():
    rules = ScaleRules(max_skipped_in_a_row=None, recovery_steps=None)
    assert (rules.max_skipped_in_a_row, rules.recovery_steps) == (None, None)


def test_the_initial_scale_lies_between_the_bounds():
    with pytest.raises(ValueError, match=naming("initial_scale=8", "max_scale=4")):
        ScaleRules(initial_scale=8.0, max_scale=4.0)
    assert ScaleRules(initial_scale=8.0, max_scale=4.0, dynamic=False)
    with pytest.raises(ValueError, match=naming("min_scale=4", "max_scale=2")):
        ScaleRules(initial_scale=3.0, min_scale=4.0, max_scale=2.0)


def test_what_float32_does_not_hold_is_told_within_the_range():
    with pytest.raises(ValueError, match=naming("growth_factor=inf", "above 1", "3.4e+38")):
        ScaleRules(growth_factor=float("inf"))
    with pytest.raises(ValueError, match=naming("backoff_factor=1e-40", "below 1", "2^-126")):
        ScaleRules(backoff_factor=1e-40)


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        (whole(1, 9), "from 1 to 9"),
        (whole(0, 9, or_none=True), "from 0 to 9, or none"),
        (Range(above=0.0), "above 0"),
        (Range(least=0.0, below=1.0), "0 or more and below 1"),
        (Range(least=2.0**-126), "2^-126 (1.18e-38) or more"),
    ],
)
def test_a_range_in_words(allowed, words):
    assert str(allowed) == words
