"""Histograms of exponents against what NumPy's float16 makes of the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tfamp.reporting import exponents
from tfamp.run.fidelity import Histogram


def test_the_limits_are_float16s():
    assert (exponents.SMALLEST, exponents.SMALLEST_NORMAL) == (-24, -14)
    largest = 2.0**exponents.LARGEST
    assert largest == pytest.approx(65504, rel=1e-12)


@pytest.mark.parametrize("log2_scale", [0, 7, 15, -3])
def test_what_becomes_of_each_exponent_is_what_numpy_does(log2_scale):
    for exponent in range(-45, 25):
        # Off the ties and below the few that round from 2^16's exponent to infinity.
        number = np.float64(1.3 * 2.0**exponent)
        with np.errstate(over="ignore"):
            held = abs(float(np.float16(number * 2.0**log2_scale)))
        expected = "normal"
        if held == 0:
            expected = "lost"
        elif held == np.inf:
            expected = "overflow"
        elif number * 2.0**log2_scale < 2.0**-14:
            expected = "subnormal"
        assert exponents.becomes(exponent, log2_scale) == expected, exponent


def test_shares_are_of_all_entries_to_the_entry():
    histogram = Histogram(first=-27, counts=(4, 3, 2, 0, 5), zeros=6)
    found = exponents.shares(histogram)
    assert found == exponents.Shares(
        zero=6 / 20, lost=7 / 20, subnormal=7 / 20, normal=0.0, overflow=0.0
    )
    assert found.lost_of_non_zero == pytest.approx(7 / 14)
    assert exponents.shares(histogram, 1).lost == 4 / 20
    assert exponents.shares(histogram, 2).lost == 0
    assert exponents.shares(histogram, 13).normal == 14 / 20
    assert exponents.shares(histogram, 40).overflow == 5 / 20


def test_histograms_add_up_by_exponent():
    total = exponents.total(
        [
            Histogram(first=-3, counts=(1, 2), zeros=1),
            None,
            Histogram(first=-5, counts=(7,), zeros=0),
            Histogram(first=40, counts=(), zeros=2),
        ]
    )
    assert total == Histogram(first=-5, counts=(7, 0, 1, 2), zeros=3)
    assert exponents.total([None]) is None
    assert exponents.total([Histogram(first=0, counts=(), zeros=0)]) is None
    only_zeros = exponents.total([Histogram(first=0, counts=(), zeros=2)])
    assert only_zeros == Histogram(first=0, counts=(), zeros=2)
    assert exponents.shares(only_zeros).lost_of_non_zero == 0
