"""The step clock: windows of steps, without tracing, compiling, evaluation and pauses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfamp.run.result import StepTime


@dataclass(frozen=True)
class Window:
    """A stretch of training between two marks.

    Attributes:
        steps: How many steps it holds.
        seconds: Its wall time.
    """

    steps: int
    seconds: float

    @property
    def step_ms(self) -> float:
        """Mean milliseconds a step."""
        return 1e3 * self.seconds / self.steps


class StepClock:
    """Times windows of steps; the caller waits for the device before each mark.

    A step by itself cannot be timed without waiting for the device after it, which would
    slow it down; so the unit is the window, and the statistics weigh each window by its steps.

    Attributes:
        now: Seconds, as `time.perf_counter` counts them: the one clock of a run.
        windows: The windows that were closed.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.windows: list[Window] = []
        self._start: tuple[int, float] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a window is open."""
        return self._start is not None

    def start(self, step: int) -> None:
        """Opens a window after step number `step`."""
        self._start = (step, self.now())

    def pause(self) -> None:
        """Drops the open window, if any: what runs now is no training step."""
        self._start = None

    def mark(self, step: int) -> Window | None:
        """Closes the window after step number `step` and opens the next.

        Returns:
            The closed window; None if none was open or it holds no step.
        """
        now = self.now()
        window = None
        if self._start is not None and step > self._start[0]:
            window = Window(step - self._start[0], now - self._start[1])
            self.windows.append(window)
        self._start = (step, now)
        return window


def summary(windows: Sequence[Window]) -> StepTime | None:
    """Median and 95th percentile of the step time in ms, over `n` timed steps.

    Returns:
        As in result.json; None if nothing was timed.
    """
    if not windows:
        return None
    return StepTime(
        median=_quantile(windows, 0.5),
        p95=_quantile(windows, 0.95),
        n=sum(window.steps for window in windows),
    )


def _quantile(windows: Sequence[Window], share: float) -> float:
    ordered = sorted(windows, key=lambda window: window.step_ms)
    needed = share * sum(window.steps for window in ordered)
    seen = 0
    for window in ordered:
        seen += window.steps
        if seen >= needed:
            return window.step_ms
    return ordered[-1].step_ms
