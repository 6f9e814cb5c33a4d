from __future__ import annotations

import pytest

from tfamp.sweeping.remaining_time import RemainingTime, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (400, "7 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1 h 30 min"),
        (7500, "2 h 5 min"),
        (100 * 3600, "100 h 0 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_no_estimate_before_anything_is_known():
    remaining = RemainingTime()
    assert remaining.seconds_left(8) is None
    assert remaining.in_words(8) == "no estimate yet"


def test_the_mean_of_this_sweeps_cells_times_those_left():
    remaining = RemainingTime(earlier_sec=[60.0, 120.0])
    assert remaining.in_words(6) == "about 9 min left"
    remaining.completed(10.0)
    remaining.completed(30.0)
    assert remaining.seconds_left(4) == 80.0
    assert remaining.in_words(4) == "about 80 s left"


@pytest.mark.parametrize(("left", "seconds"), [(8, 40.0), (3, 15.0), (1, 10.0)])
def test_cells_side_by_side(left, seconds):
    remaining = RemainingTime(jobs=2)
    remaining.completed(10.0)
    assert remaining.seconds_left(left) == seconds
