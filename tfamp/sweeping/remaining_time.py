"""How long the rest of a sweep will take."""

from __future__ import annotations

from collections.abc import Sequence


class RemainingTime:
    """Estimates the time that the rest of a sweep will take, by the cells before.

    Args:
        jobs: Processes at a time.
        earlier_sec: Durations of the cells that are finished already, in seconds. They count until
            a cell of this sweep has completed.
    """

    def __init__(self, jobs: int = 1, earlier_sec: Sequence[float] = ()) -> None:
        self._jobs = jobs
        self._earlier_sec = list(earlier_sec)
        self._completed_sec: list[float] = []

    def completed(self, seconds: float) -> None:
        """Takes note of a cell's duration."""
        self._completed_sec.append(seconds)

    def seconds_left(self, cells: int) -> float | None:
        """The mean duration of a cell times those left; None where no cell has completed.

        Args:
            cells: Those that have not ended.
        """
        known = self._completed_sec or self._earlier_sec
        if not known:
            return None
        return sum(known) / len(known) * cells / min(self._jobs, cells)

    def in_words(self, cells: int) -> str:
        """`about 6 min left`, or that there is no estimate; arguments as for `seconds_left`."""
        seconds = self.seconds_left(cells)
        return "no estimate yet" if seconds is None else f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """A time span as people say it, such as `40 s`, `6 min` or `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
