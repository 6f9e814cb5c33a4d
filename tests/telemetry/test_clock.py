from __future__ import annotations

import dataclasses

import pytest

from tfamp.telemetry.clock import StepClock, Window, summary


class FakeTime:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def clock(time):
    return StepClock(time)


def fill(clock, time, windows):
    """Times windows of (steps, ms a step)."""
    step = 0
    clock.start(step)
    for steps, step_ms in windows:
        step += steps
        time.seconds += steps * step_ms / 1e3
        clock.mark(step)


def test_a_window_is_the_mean_of_its_steps():
    assert Window(steps=4, seconds=0.5).step_ms == 125.0


def test_windows_follow_each_other(clock, time):
    clock.start(1)
    time.seconds += 0.5
    assert clock.mark(6) == Window(5, 0.5)
    time.seconds += 0.25
    assert clock.mark(7) == Window(1, 0.25)
    assert clock.windows == [Window(5, 0.5), Window(1, 0.25)]


def test_a_mark_without_a_start_opens_a_window_only(clock, time):
    assert not clock.is_running
    time.seconds += 9
    assert clock.mark(3) is None
    assert clock.is_running
    time.seconds += 2
    assert clock.mark(5) == Window(2, 2.0)


def test_a_mark_at_the_same_step_closes_nothing_and_begins_anew(clock, time):
    clock.start(3)
    time.seconds += 5
    assert clock.mark(3) is None
    time.seconds += 1
    assert clock.mark(4) == Window(1, 1.0)
    assert len(clock.windows) == 1


def test_a_pause_drops_the_open_window_and_keeps_the_rest(clock, time):
    clock.start(0)
    time.seconds += 1
    clock.mark(2)
    time.seconds += 1
    clock.pause()
    assert not clock.is_running
    time.seconds += 100
    clock.start(3)
    time.seconds += 3
    clock.mark(4)
    assert clock.windows == [Window(2, 1.0), Window(1, 3.0)]


def test_a_pause_of_a_clock_that_stands_is_nothing(clock):
    clock.pause()
    assert clock.windows == []


def summary_of(clock):
    return dataclasses.asdict(summary(clock.windows))


def test_nothing_timed_is_nothing_to_say(clock):
    assert summary(clock.windows) is None
    clock.start(0)
    assert summary(clock.windows) is None


def test_one_window(clock, time):
    fill(clock, time, [(10, 20.0)])
    assert summary_of(clock) == pytest.approx({"median": 20.0, "p95": 20.0, "n": 10})


@pytest.mark.parametrize(
    ("windows", "median", "p95", "n"),
    [
        # As many steps each: the plain quantiles.
        ([(1, ms) for ms in (5.0, 1.0, 4.0, 2.0, 3.0)], 3.0, 5.0, 5),
        # 90 of 102 steps took 10 ms: so did the median one, whatever the number of windows.
        ([(1, 500.0), (1, 600.0), (90, 10.0), (10, 20.0)], 10.0, 20.0, 102),
        # 3 of 100 steps are slow: the 95th percentile is not.
        ([(97, 10.0), (3, 1000.0)], 10.0, 10.0, 100),
        # 6 of 100 are: it is.
        ([(94, 10.0), (6, 1000.0)], 10.0, 1000.0, 100),
        # Exactly half.
        ([(5, 10.0), (5, 30.0)], 10.0, 30.0, 10),
        ([(4, 10.0), (6, 30.0)], 30.0, 30.0, 10),
    ],
)
def test_quantiles_weigh_windows_by_their_steps(clock, time, windows, median, p95, n):
    fill(clock, time, windows)
    assert summary_of(clock) == pytest.approx({"median": median, "p95": p95, "n": n})
    backwards = StepClock(time)
    fill(backwards, time, windows[::-1])
    assert summary_of(backwards) == pytest.approx(summary_of(clock))
