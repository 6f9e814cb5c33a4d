"""What a run does about a loss, a gradient or a weight that is NaN or infinite."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras

from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.watch import is_finite
from tfamp.run import records
from tfamp.run.result import NonFinite

_COMPARE = "Unless this is float32, the same run in float32 tells whether precision is the cause."
_LOOK_FIRST = (
    "Look for NaN or huge values in the data, and in what the model divides by, takes the "
    f"logarithm of or raises e to. {_COMPARE}"
)
_LOOK_SCALE = (
    "The losses were finite, so the loss scale was too large or was still falling to its level: "
    "train for more steps, or begin with a smaller scale."
)
_LOOK_LATER = (
    "Lower the learning rate, warm it up or clip the gradient, and look for NaN in the data. "
    f"{_COMPARE}"
)


class NonFiniteRun(RuntimeError):
    """A run's figures are not finite, and going on or calling it a success would help nobody."""


def _to_stderr(line: str) -> None:
    # The newline first: a progress bar may stand there.
    print(f"\n{line}", file=sys.stderr, flush=True)


@dataclasses.dataclass
class NonFiniteFound:
    """What was not finite in a run so far.

    Attributes:
        first_step: The step, from 1, at which something first was not; None where all was finite.
        what: `"loss"`, `"gradient"` or `"weight"`: what it was.
        was_skipped: Whether a loss scale skipped that step.
        steps: In how many steps a loss or an applied gradient was not finite.
        weight: The path of a weight that is not.
        epoch: The epoch whose losses are counted.
        finite_losses: Losses of that epoch that were finite.
        non_finite_losses: Those that were not.
    """

    first_step: int | None = None
    what: Literal["loss", "gradient", "weight"] | None = None
    was_skipped: bool = False
    steps: int = 0
    weight: str | None = None
    epoch: int = -1
    finite_losses: int = 0
    non_finite_losses: int = 0

    def result(self) -> NonFinite | None:
        """What result.json says: None where all was finite."""
        if self.first_step is None:
            return None
        return NonFinite(
            first_step=self.first_step, what=self.what, steps=self.steps, weight=self.weight
        )


class NonFiniteWatch:
    """Sees every step's row as it is written, and says once what first was not finite.

    A step that a loss scale skipped kept its gradient from the weights: that its gradient is not
    finite is how a scale is found, and no fault. A loss is unscaled: NaN or infinite there is one.

    Attributes:
        stops: Whether a collapse of the loss scale ends the run.
        found: What was seen.

    Args:
        say: Where the words for the user go.
    """

    def __init__(self, say: Callable[[str], None] = _to_stderr) -> None:
        self.stops = True
        self.found = NonFiniteFound()
        self.say = say

    def see(self, step: int, epoch: int, row: Mapping[str, Any]) -> None:
        """Takes in the row of a step.

        Args:
            step: The step, from 1.
            epoch: Its epoch.
            row: Its figures, under the names of `records`.
        """
        found = self.found
        if epoch != found.epoch:
            found.epoch, found.finite_losses, found.non_finite_losses = epoch, 0, 0
        loss = row.get(records.TRAIN_LOSS)
        bad_loss = None if loss is None or math.isfinite(loss) else loss
        found.non_finite_losses += bad_loss is not None
        found.finite_losses += loss is not None and bad_loss is None
        bad_norm = _applied_non_finite_norm(row)
        bad = bad_norm if bad_loss is None else bad_loss
        if bad is None:
            return
        found.steps += 1
        if found.first_step is None:
            found.first_step = step
            found.what = "gradient" if bad_loss is None else "loss"
            found.was_skipped = bool(row.get(records.SKIPPED_IN_A_ROW))
            skipped = ", and the step was skipped" if found.was_skipped else ""
            self.say(f"Step {step}: the {found.what} is {_named(bad)}{skipped}. {self.advice()}")

    def look_at_weights(self, model: keras.Model, step: int) -> str | None:
        """The path of a weight that is not finite, the first time; reads the device."""
        found = self.found
        if found.weight is not None:
            return None
        found.weight = next((w.path for w in model.weights if not is_finite(w)), None)
        if found.weight is not None and found.first_step is None:
            found.first_step, found.what = step, "weight"
        return found.weight

    def take_collapse(self, raise_if_collapsed: Callable[[], None]) -> None:
        """Lets a collapse of the loss scale end the run, or says it where `stops` is off.

        Args:
            raise_if_collapsed: The optimizer's own.
        """
        try:
            raise_if_collapsed()
        except LossScaleCollapse as collapse:
            if self.stops:
                raise
            self.say(f"{collapse} The run goes on, as it was told to.")

    def advice(self) -> str:
        """What to look at next."""
        # A step that was skipped left the weights as they were: they are not what broke.
        is_sudden = self.found.first_step in (None, 1) or self.found.was_skipped
        return _LOOK_FIRST if is_sudden else _LOOK_LATER

    def verdict(self, attempted: int, applied: int | None) -> str | None:
        """Why a run that came to its end is no success; None where it is one.

        Args:
            attempted: Updates that were tried.
            applied: Those that reached the weights; None where nobody counted.
        """
        found = self.found
        if attempted and applied == 0:
            advice = _LOOK_SCALE if found.first_step is None else self.advice()
            return (
                "No step was applied: the gradient of each held NaN or infinite values, and the "
                f"weights are those that the run began with. {advice}"
            )
        if found.non_finite_losses and not found.finite_losses:
            return (
                f"Every loss of the last epoch is NaN or infinite; the first one was at step "
                f"{found.first_step}. {self.advice()}"
            )
        return None


def _applied_non_finite_norm(row: Mapping[str, Any]) -> float | None:
    # Of several optimizers each has its own norm and its own skips, with the same ending.
    for name, value in row.items():
        if name.startswith(records.GRADIENT_NORM) and not math.isfinite(value):
            ending = name.removeprefix(records.GRADIENT_NORM)
            if not row.get(records.SKIPPED_IN_A_ROW + ending):
                return value
    return None


def _named(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite"
