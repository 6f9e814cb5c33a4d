"""What a run does about a loss, a gradient or a weight that is NaN or infinite."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras

from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.watch import is_finite
from tfamp.run import records

if TYPE_CHECKING:
    from tfamp.telemetry.callback import PrecisionTelemetry

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


class NonFiniteWatch:
    """Sees every step's row as it is written, and says once what first was not finite.

    A step that a loss scale skipped kept its gradient from the weights: that its gradient is not
    finite is how a scale is found, and no fault. A loss is unscaled: NaN or infinite there is one.

    Attributes:
        stops: Whether a collapse of the loss scale ends the run.

    Args:
        say: Where the words for the user go.
    """

    def __init__(self, say: Callable[[str], None] = _to_stderr) -> None:
        self.stops = True
        self.first_step: int | None = None
        self.what: str | None = None
        self.steps = 0
        self.weight: str | None = None
        self.say = say
        self._epoch = -1
        self._was_skipped = False
        self._finite_losses = self._non_finite_losses = 0

    def see(self, step: int, epoch: int, row: Mapping[str, Any]) -> None:
        """Takes in the row of a step.

        Args:
            step: The step, from 1.
            epoch: Its epoch.
            row: Its figures, under the names of `records`.
        """
        if epoch != self._epoch:
            self._epoch, self._finite_losses, self._non_finite_losses = epoch, 0, 0
        loss = row.get(records.TRAIN_LOSS)
        bad_loss = None if loss is None or math.isfinite(loss) else loss
        self._non_finite_losses += bad_loss is not None
        self._finite_losses += loss is not None and bad_loss is None
        bad_norm = _applied_non_finite_norm(row)
        bad = bad_norm if bad_loss is None else bad_loss
        if bad is None:
            return
        self.steps += 1
        if self.first_step is None:
            self.first_step = step
            self.what = "gradient" if bad_loss is None else "loss"
            self._was_skipped = bool(row.get(records.SKIPPED_IN_A_ROW))
            skipped = ", and the step was skipped" if self._was_skipped else ""
            self.say(f"Step {step}: the {self.what} is {_named(bad)}{skipped}. {self.advice()}")

    def look_at_weights(self, model: keras.Model, step: int) -> str | None:
        """The path of a weight that is not finite, the first time; reads the device."""
        if self.weight is not None:
            return None
        self.weight = next((w.path for w in model.weights if not is_finite(w)), None)
        if self.weight is not None and self.first_step is None:
            self.first_step, self.what = step, "weight"
        return self.weight

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
        is_sudden = self.first_step in (None, 1) or self._was_skipped
        return _LOOK_FIRST if is_sudden else _LOOK_LATER

    def verdict(self, attempted: int, applied: int | None) -> str | None:
        """Why a run that came to its end is no success; None where it is one.

        Args:
            attempted: Updates that were tried.
            applied: Those that reached the weights; None where nobody counted.
        """
        if attempted and applied == 0:
            advice = _LOOK_SCALE if self.first_step is None else self.advice()
            return (
                "No step was applied: the gradient of each held NaN or infinite values, and the "
                f"weights are those that the run began with. {advice}"
            )
        if self._non_finite_losses and not self._finite_losses:
            return (
                f"Every loss of the last epoch is NaN or infinite; the first one was at step "
                f"{self.first_step}. {self.advice()}"
            )
        return None

    def result(self) -> dict[str, Any] | None:
        """What result.json says: None where all was finite."""
        if self.first_step is None:
            return None
        return {
            "first_step": self.first_step,
            "what": self.what,
            "steps": self.steps,
            "weight": self.weight,
        }


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends a run that nothing scales once a weight is not finite: no later step mends it.

    Weights are looked at only at a read that found a loss or a gradient that is not finite, so a
    healthy run pays nothing.

    Args:
        telemetry: What reads the steps; it must come before this in the callbacks.
        stops: Whether to end the run; otherwise the weight is only told of.
    """

    def __init__(self, telemetry: PrecisionTelemetry, stops: bool) -> None:
        super().__init__()
        self._telemetry = telemetry
        self._stops = stops
        self._seen = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks, if the telemetry has just found something."""
        self._look()

    def on_test_begin(self, logs: Any = None) -> None:
        """Looks before the last weights of an epoch are evaluated."""
        self._look()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks where nothing was evaluated, or where that gave no finite loss."""
        loss = (logs or {}).get("val_loss")
        self._look(is_due=loss is not None and not math.isfinite(loss))

    def _look(self, is_due: bool = False) -> None:
        watch, step = self._telemetry.non_finite, self._telemetry.step
        if watch.steps == self._seen and not is_due:
            return
        self._seen = watch.steps
        weight = watch.look_at_weights(self.model, step)
        if weight is None:
            return
        since = (
            ""
            if watch.what == "weight"
            else (f" The {watch.what} of step {watch.first_step} was the first that is not finite.")
        )
        found = f"Step {step}: the weight {weight!r} is NaN or infinite.{since}"
        if self.model.optimizer.is_scaling:
            # Every step is skipped from here on, and `max_skipped_in_a_row` ends the run.
            watch.say(found)
        elif self._stops:
            raise NonFiniteRun(
                f"{found} No later step mends it. {watch.advice()} --nostop_on_non_finite trains "
                "on all the same."
            )
        else:
            watch.say(f"{found} No later step mends it; the run goes on, as it was told to.")


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
