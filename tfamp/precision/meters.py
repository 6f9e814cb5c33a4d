"""What looks at a training step from around it, as graph code of the step.

`training/` wraps a step in meters and knows nothing of what they do. What is measured of the
gradients themselves (norm, finiteness, zeros: `gradients.gradient_figures`, and which was the first
that is not finite) belongs inside the step: the optimizer does it, and keeps it in `history()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf


class Meter(Protocol):
    """One thing that is looked at. Both calls are traced into the step, on every replica."""

    def before(self) -> Sequence[tf.Tensor]:
        """Called first in a step; what it returns is handed to `after`."""

    def after(self, before: Sequence[tf.Tensor]) -> None:
        """Called last in the step, once its updates are made."""


def metered(step: Callable[..., Any], meters: Sequence[Meter]) -> Callable[..., Any]:
    """A step with meters around it: the first one is the outermost.

    Args:
        step: A step of one replica, such as a model's `train_step`.
        meters: What looks at it.

    Returns:
        A function that takes and returns what the step does.
    """
    if not meters:
        return step

    def metered_step(*args: Any, **kwargs: Any) -> Any:
        found = [meter.before() for meter in meters]
        result = step(*args, **kwargs)
        for meter, before in reversed(list(zip(meters, found, strict=True))):
            meter.after(before)
        return result

    return around(metered_step, step)


def around(wrapper: Callable[..., Any], step: Callable[..., Any]) -> Callable[..., Any]:
    """Says of a step what it is wrapped around; returns it."""
    wrapper.bare = bare(step)  # type: ignore[attr-defined]
    return wrapper


def bare(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step without anything that is wrapped around it here."""
    return getattr(step, "bare", step)
