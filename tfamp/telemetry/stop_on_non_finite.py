"""The callback that ends a run once a weight is NaN or infinite."""

from __future__ import annotations

import math
from typing import Any

import keras

from tfamp.telemetry.callback import PrecisionTelemetry
from tfamp.telemetry.non_finite import NonFiniteRun


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
        found = watch.found
        if found.steps == self._seen and not is_due:
            return
        self._seen = found.steps
        weight = watch.look_at_weights(self.model, step)
        if weight is None:
            return
        message = f"Step {step}: the weight {weight!r} is NaN or infinite."
        if found.what != "weight":
            message += (
                f" The {found.what} of step {found.first_step} was the first that is not finite."
            )
        if self.model.optimizer.is_scaling:
            # Every step is skipped from here on, and `max_skipped_in_a_row` ends the run.
            watch.say(message)
        elif self._stops:
            raise NonFiniteRun(
                f"{message} No later step mends it. {watch.advice()} --nostop_on_non_finite trains "
                "on all the same."
            )
        else:
            watch.say(f"{message} No later step mends it; the run goes on, as it was told to.")
