"""Runs several training loops in turns of a few steps, so that a noisy machine hits all alike."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any


class Turns:
    """Hands the machine from one training thread to the next every few steps, and times turns.

    A loop takes part by passing its compiled step through `gate`; nothing else of it changes.
    A turn lasts from the beginning of one step to the beginning of the `steps`-th after it, so it
    holds what the loop does between steps too: callbacks, telemetry, the progress bar.

    Args:
        steps: Calls in a turn.
        rounds: Timed turns of each loop; one more, which compiles, goes before.
        clock: What tells the time, in seconds.
    """

    def __init__(
        self, steps: int, rounds: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._steps = steps
        self._rounds = rounds
        self._clock = clock
        self._turn = threading.Condition()
        self._order: list[str] = []
        self._now = 0
        self.seconds: dict[str, list[float]] = {}

    def gate(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a step so that it waits for its turn; raises `Done` after the last."""
        calls = 0
        started = 0.0

        def gated(*args: Any) -> Any:
            nonlocal calls, started
            if calls % self._steps == 0:
                if calls:
                    self._finish_turn(name, self._clock() - started)
                self._wait(name)
                started = self._clock()
            calls += 1
            return step(*args)

        return gated

    def run(self, loops: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
        """Runs each loop in a thread of its own until every one has had its rounds.

        Returns:
            Seconds of each timed turn, by name.
        """
        self._order = list(loops)
        self.seconds = {name: [] for name in loops}
        errors: list[BaseException] = []

        def guarded(loop: Callable[[], None]) -> None:
            try:
                loop()
            except Done:
                pass
            except BaseException as error:
                errors.append(error)
                with self._turn:
                    self._now = -1
                    self._turn.notify_all()

        threads = [threading.Thread(target=guarded, args=(loop,)) for loop in loops.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return {name: turns[1:] for name, turns in self.seconds.items()}

    def _wait(self, name: str) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._now < 0 or self._order[self._position()] == name)
            if self._now < 0:
                raise Done

    def _position(self) -> int:
        # The order rotates from round to round.
        round_number, place = divmod(self._now, len(self._order))
        return (place + round_number) % len(self._order)

    def _finish_turn(self, name: str, seconds: float) -> None:
        with self._turn:
            self.seconds[name].append(seconds)
            self._now += 1
            if self._now == (self._rounds + 1) * len(self._order):
                self._now = -1
            self._turn.notify_all()


class Done(BaseException):
    """All rounds are done: not an Exception, so that no loop takes it for one of its own."""


def paired_ratios(seconds: list[float], baseline: list[float]) -> dict[str, Any]:
    """Ratios of turns of one round, with their median, quartiles and the median's interval.

    The interval holds the true median in 95 of 100 cases whatever the distribution (order
    statistics of the binomial, normal approximation).
    """
    ratios = sorted(a / b for a, b in zip(seconds, baseline, strict=True))
    n = len(ratios)
    reach = 0.98 * n**0.5
    low = max(0, int(n / 2 - reach))
    high = min(n - 1, int(n / 2 + reach))
    quarters = statistics.quantiles(ratios, n=4)
    return {
        "median": statistics.median(ratios),
        "median_95_interval": [ratios[low], ratios[high]],
        "quartiles": [quarters[0], quarters[2]],
        "total": sum(seconds) / sum(baseline),
        "rounds": n,
    }
