"""The loss scales at which a gradient is as good as it gets; plain Python."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tfamp.run.fidelity import Window

# How far above the valley's floor an error may be.
TOLERANCE = 1.1
# Errors within this factor of the smallest are the valley and its slopes: rounding luck moves an
# error by less, and a wall by more.
_NEAR = 2.0
# One scale this far above the floor, between two in the valley, is luck.
_BUMP = 1.25


class Curve(NamedTuple):
    """A layer's error over the scales.

    Attributes:
        errors: By log2 of the scale, upwards; None where something of the layer is not finite.
        slack: An error that is no error: what float32 has too.
        is_held: Whether the layer's error counts; else its finiteness alone does.
    """

    errors: Mapping[int, float | None]
    slack: float = 0.0
    is_held: bool = True


class Bounds(NamedTuple):
    """A model's window, or what leaves it without one.

    Attributes:
        window: The window; None where no scale is in every layer's.
        needs: Path of the layer whose window begins last; None without any.
        overflows: Path of the layer whose window ends first; None without any.
        least: Where the window of `needs` begins.
        most: Where the window of `overflows` ends.
    """

    window: Window | None
    needs: str | None
    overflows: str | None
    least: int
    most: int


def window_of(curve: Curve) -> Window | None:
    """The longest run of scales at which the error is within 10 % of the valley's floor.

    Scaling by a power of two rounds nothing, so where nothing underflows the error is the same at
    each scale, to the bit. Next to the underflow wall it moves by luck, which may make one scale
    the best by far, and the next ones worse; so the floor is what the valley has, not the one
    smallest error, and the window is the valley, not what lies around that one.

    Args:
        curve: The layer's error over the scales.

    Returns:
        The window; None where no scale is finite.
    """
    scales = sorted(curve.errors)
    errors = [curve.errors[scale] for scale in scales]
    if all(error is None for error in errors):
        return None
    if not curve.is_held:
        errors = [None if error is None else 0.0 for error in errors]
    allowed = TOLERANCE * floor_of(errors) + curve.slack
    known = [error is not None and error <= allowed for error in errors]
    is_in = [
        inside or (is_bump(errors, known, place) and errors[place] <= _BUMP * allowed)  # type: ignore[operator]
        for place, inside in enumerate(known)
    ]
    first, last = _longest_run(is_in, errors)
    return Window(log2_min=scales[first], log2_max=scales[last], is_open=last + 1 == len(scales))


def _longest_run(is_in: Sequence[bool], errors: Sequence[float | None]) -> tuple[int, int]:
    """The first and the last place of the longest run; of two as long, of that with less error.

    Beyond an overflow none is looked for where there is one below it.
    """
    runs: list[list[int]] = []
    is_ended = False
    known = {place: error for place, error in enumerate(errors) if error is not None}
    for place, inside in enumerate(is_in):
        is_ended |= bool(runs) and place not in known
        if not inside or is_ended:
            continue
        if place and is_in[place - 1]:
            runs[-1].append(place)
        else:
            runs.append([place])
    longest = max(runs, key=lambda run: (len(run), -min(known[place] for place in run)))
    return longest[0], longest[-1]


def is_bump(errors: Sequence[float | None], known: Sequence[bool], place: int) -> bool:
    """Whether a finite error that is too large stands alone between two in the valley."""
    return (
        errors[place] is not None
        and 0 < place < len(errors) - 1
        and known[place - 1]
        and known[place + 1]
    )


def floor_of(errors: Sequence[float | None]) -> float:
    """The error of a valley: of a smooth one its smallest, of a rough one its median.

    Args:
        errors: By scale, upwards; not all None.
    """
    finite = [error for error in errors if error is not None]
    smallest = min(finite)
    upwards = finite[finite.index(smallest) :]
    return max(
        smallest,
        min(_median_near(finite, smallest), _median_near(upwards, smallest)),
    )


def _median_near(errors: Iterable[float], smallest: float) -> float:
    return statistics.median_low(error for error in errors if error <= _NEAR * smallest)


def bounds_of(windows: Mapping[str, Window]) -> Bounds:
    """What lies in every layer's window.

    Args:
        windows: Of the layers that take part, by path.
    """
    if not windows:
        return Bounds(None, None, None, 0, 0)
    needs = max(windows, key=lambda path: windows[path].log2_min)
    # A wall before an end of what was tried.
    overflows = min(windows, key=lambda path: (windows[path].log2_max, windows[path].is_open))
    least, most = windows[needs].log2_min, windows[overflows].log2_max
    window = None
    if least <= most:
        window = Window(log2_min=least, log2_max=most, is_open=windows[overflows].is_open)
    return Bounds(window, needs, overflows, least, most)


def apart(windows: Mapping[str, Window]) -> tuple[str, ...]:
    """The fewest layers without which the windows of all others have a scale in common."""
    if not windows:
        return ()
    scales = {scale for each in windows.values() for scale in (each.log2_min, each.log2_max)}

    def outside(scale: int) -> tuple[str, ...]:
        return tuple(
            path for path, each in windows.items() if not each.log2_min <= scale <= each.log2_max
        )

    # Of two as good, the smaller scale: overflow costs steps, underflow a little of the gradient.
    return min((outside(scale) for scale in sorted(scales)), key=len)


def extends_below(scales: Sequence[int], finite: Mapping[int, bool]) -> bool:
    """Whether overflow begins so low that scales below those tried may be better.

    Args:
        scales: Those tried, upwards.
        finite: By scale, whether all that a scale can cure is finite.
    """
    return not all(finite[scale] for scale in scales[:2])
