"""Intervals against numbers worked out by hand and against tables."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfamp.reporting import estimates

# Student's t at 97.5%, from the tables.
T = {1: 12.706205, 2: 4.302653, 4: 2.776445}


def test_mean_and_interval_of_three():
    found = estimates.mean([1.0, 2.0, 6.0])
    # s^2 = ((-2)^2 + (-1)^2 + 3^2) / 2 = 7
    reach = T[2] * math.sqrt(7 / 3)
    assert found.value == 3.0
    assert found.n == 3
    assert found.low == pytest.approx(3 - reach, rel=1e-5)
    assert found.high == pytest.approx(3 + reach, rel=1e-5)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_reach_is_students_t(n):
    values = [float(i) for i in range(n)]
    found = estimates.mean(values)
    spread = math.sqrt(sum((v - found.value) ** 2 for v in values) / (n - 1))
    assert found.high - found.value == pytest.approx(T[n - 1] * spread / math.sqrt(n), rel=1e-5)


def test_one_value_has_no_interval():
    assert estimates.mean([4.0]) == estimates.Estimate(4.0, None, None, 1)


def test_no_value_has_no_mean():
    assert estimates.mean([]) is None
    assert estimates.mean_ratio([], []) is None
    assert estimates.mean_difference([], []) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_not_hidden(bad):
    found = estimates.mean([1.0, bad, 3.0])
    assert not math.isfinite(found.value)
    assert found.low is None and found.high is None and found.n == 3


def test_equal_values_have_an_interval_without_width():
    found = estimates.mean([0.1, 0.1, 0.1])
    assert found.low == pytest.approx(0.1, abs=1e-15)
    assert found.high == pytest.approx(0.1, abs=1e-15)


def test_ratios_are_paired_and_averaged_by_logarithms():
    found = estimates.mean_ratio([1.0, 20.0], [2.0, 10.0])
    assert found.value == pytest.approx(1.0)
    assert found.high == pytest.approx(math.exp(T[1] * math.log(2)), rel=1e-4)
    assert found.low == pytest.approx(1 / found.high)


def test_a_geometric_mean_and_its_interval_stay_above_zero():
    found = estimates.geometric_mean([1.0, 100.0])
    reach = T[1] * math.log(10)
    assert found.value == pytest.approx(10.0)
    assert found.low == pytest.approx(10 * math.exp(-reach), rel=1e-5)
    assert found.high == pytest.approx(10 * math.exp(reach), rel=1e-5)
    assert estimates.geometric_mean([]) is None
    assert estimates.geometric_mean([3.0]).low is None


def test_differences_are_paired():
    # Unpaired, the spread of 10 between the pairs would drown the difference of 1.
    found = estimates.mean_difference([11.0, 21.0, 31.0], [10.0, 20.0, 30.0])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        estimates.mean_ratio([1.0], [1.0, 2.0])


POSITIVE = st.floats(1e-3, 1e3)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=8))
def test_a_over_b_and_b_over_a_agree(pairs):
    tops, bottoms = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = estimates.mean_ratio(tops, bottoms), estimates.mean_ratio(bottoms, tops)
    assert there.value * back.value == pytest.approx(1.0)
    assert there.low * back.high == pytest.approx(1.0)
    assert there.low <= there.value <= there.high


@pytest.mark.parametrize(
    "shares",
    [[0.99, 0.97], [1.0, 0.98], [0.0, 0.02], [1.0, 0.0], [0.9, 0.99, 1.0], [0.001, 0.0, 0.0]],
)
def test_an_interval_of_shares_stays_among_shares(shares):
    plain, found = estimates.mean(shares), estimates.mean_share(shares)
    assert plain.low < 0.0 or plain.high > 1.0
    assert 0.0 <= found.low <= min(shares) and max(shares) <= found.high <= 1.0
    assert found.value == plain.value and found.n == plain.n


def test_shares_that_are_close_have_students_interval():
    shares = [0.843, 0.850, 0.846]
    plain, found = estimates.mean(shares), estimates.mean_share(shares)
    assert found.low == pytest.approx(plain.low, abs=1e-4)
    assert found.high == pytest.approx(plain.high, abs=1e-4)
    # By hand: t * s / sqrt(n) of the angles, turned back.
    angles = [math.asin(math.sqrt(share)) for share in shares]
    centre = sum(angles) / 3
    reach = T[2] * math.sqrt(sum((a - centre) ** 2 for a in angles) / 2 / 3)
    assert found.low == pytest.approx(math.sin(centre - reach) ** 2, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shares_that_agree_have_no_width(share):
    found = estimates.mean_share([share, share])
    assert (found.low, found.high) == (pytest.approx(share), pytest.approx(share))


@pytest.mark.parametrize("shares", [[], [0.5], [0.5, math.nan], [0.5, 1.5], [-0.2, 0.5]])
def test_what_are_no_several_shares_is_left_to_the_mean(shares):
    plain, found = estimates.mean(shares), estimates.mean_share(shares)
    assert (found is plain is None) or str(found) == str(plain)


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=9))
def test_any_shares_have_their_mean_in_an_interval_of_shares(shares):
    found = estimates.mean_share(shares)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_a_difference_of_shares_stays_between_minus_one_and_one():
    assert estimates.mean_difference([0.9, 0.5], [0.1, 0.4]).high > 1.0
    found = estimates.mean_share_difference([0.9, 0.5], [0.1, 0.4])
    assert (found.value, found.low, found.high) == (pytest.approx(0.45), -1.0, 1.0)
    assert estimates.mean_share_difference([0.5], [0.4]).low is None
    assert estimates.mean_share_difference([], []) is None
    close = estimates.mean_share_difference([0.5, 0.51], [0.5, 0.5])
    assert close == estimates.mean_difference([0.5, 0.51], [0.5, 0.5])


def test_a_difference_of_what_are_no_shares_is_not_cut():
    found = estimates.mean_share_difference([1.5, 1.7], [0.1, 0.1])
    assert found == estimates.mean_difference([1.5, 1.7], [0.1, 0.1]) and found.high > 1.5
