"""Intervals against numbers worked out by hand and against tables."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfamp.reporting import statistics

# Student's t at 97.5%, from the tables.
T = {1: 12.706205, 2: 4.302653, 4: 2.776445}


def test_mean_and_interval_of_three():
    found = statistics.mean([1.0, 2.0, 6.0])
    # s^2 = ((-2)^2 + (-1)^2 + 3^2) / 2 = 7
    reach = T[2] * math.sqrt(7 / 3)
    assert found.value == 3.0
    assert found.n == 3
    assert found.low == pytest.approx(3 - reach, rel=1e-5)
    assert found.high == pytest.approx(3 + reach, rel=1e-5)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_reach_is_students_t(n):
    values = [float(i) for i in range(n)]
    found = statistics.mean(values)
    spread = math.sqrt(sum((v - found.value) ** 2 for v in values) / (n - 1))
    assert found.high - found.value == pytest.approx(T[n - 1] * spread / math.sqrt(n), rel=1e-5)


def test_one_value_has_no_interval():
    assert statistics.mean([4.0]) == statistics.Estimate(4.0, None, None, 1)


def test_no_value_has_no_mean():
    assert statistics.mean([]) is None
    assert statistics.mean_ratio([], []) is None
    assert statistics.mean_difference([], []) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_not_hidden(bad):
    found = statistics.mean([1.0, bad, 3.0])
    assert not math.isfinite(found.value)
    assert found.low is None and found.high is None and found.n == 3


def test_equal_values_have_an_interval_without_width():
    found = statistics.mean([0.1, 0.1, 0.1])
    assert found.low == pytest.approx(0.1, abs=1e-15)
    assert found.high == pytest.approx(0.1, abs=1e-15)


def test_ratios_are_paired_and_averaged_by_logarithms():
    found = statistics.mean_ratio([1.0, 20.0], [2.0, 10.0])
    assert found.value == pytest.approx(1.0)
    assert found.high == pytest.approx(math.exp(T[1] * math.log(2)), rel=1e-4)
    assert found.low == pytest.approx(1 / found.high)


def test_a_geometric_mean_and_its_interval_stay_above_zero():
    found = statistics.geometric_mean([1.0, 100.0])
    reach = T[1] * math.log(10)
    assert found.value == pytest.approx(10.0)
    assert found.low == pytest.approx(10 * math.exp(-reach), rel=1e-5)
    assert found.high == pytest.approx(10 * math.exp(reach), rel=1e-5)
    assert statistics.geometric_mean([]) is None
    assert statistics.geometric_mean([3.0]).low is None


def test_differences_are_paired():
    # Unpaired, the spread of 10 between the pairs would drown the difference of 1.
    found = statistics.mean_difference([11.0, 21.0, 31.0], [10.0, 20.0, 30.0])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        statistics.mean_ratio([1.0], [1.0, 2.0])


POSITIVE = st.floats(1e-3, 1e3)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=8))
def test_a_over_b_and_b_over_a_agree(pairs):
    tops, bottoms = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = statistics.mean_ratio(tops, bottoms), statistics.mean_ratio(bottoms, tops)
    assert there.value * back.value == pytest.approx(1.0)
    assert there.low * back.high == pytest.approx(1.0)
    assert there.low <= there.value <= there.high
