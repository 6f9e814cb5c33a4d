"""Reads what can be told of an optimizer that keeps no history: at marks, nothing in between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.run import records
from tfamp.telemetry.optimizer_readers import HistoryReader, OptimizerReader
from tfamp.telemetry.totals import OptimizerTotals, plus


class MarkReader:
    """Reads an optimizer that scales nothing: its learning rate, as it is after a mark's step.

    Args:
        optimizer: The optimizer.
        earlier: What earlier phases of the run did.
    """

    has_losses = False

    def __init__(self, optimizer: keras.optimizers.Optimizer, earlier: OptimizerTotals) -> None:
        self.optimizer = optimizer
        self._earlier = earlier
        self._steps = 0
        self._updates_before = self._updates = _updates(optimizer)

    def longest_wait(self, steps_per_execution: int) -> int | None:
        """None: there is nothing to forget."""
        return None

    def note(self, step: int) -> None:
        """Nothing is kept between two marks."""

    def read(self, since: int, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the figures at `step`, if it is a new one and the optimizer was used."""
        if step > since:
            self._steps += step - since
            self._updates = _updates(self.optimizer)
            if self._updates > self._updates_before:
                yield step, {records.LEARNING_RATE: learning_rate(self.optimizer)}

    def totals(self) -> OptimizerTotals:
        """Every step was tried; what of them was applied, such an optimizer does not say."""
        if self._updates == self._updates_before:
            return self._earlier
        attempted = self._earlier.attempted + self._steps
        return dataclasses.replace(self._earlier, attempted=attempted, applied=None)

    def raise_if_collapsed(self) -> None:
        """Never: such an optimizer does not give up."""

    def close(self) -> None:
        """Nothing to end."""


class KerasScaleReader(MarkReader):
    """Reads Keras's own `LossScaleOptimizer`, as `compile("adam")` makes it.

    Keras keeps the scale, the clean steps since it last moved, and the number of updates. A skip
    halves the scale and leaves the updates alone, so between two marks the skips can be counted:
    as long as the scale cannot have grown they are the halvings, else the steps less the updates
    where that agrees with the scale. Where neither can be, as when the scale has fallen to 0,
    `skipped` is not known from there on. At which step of a window a skip was is never known, nor
    a gradient's norm.
    """

    optimizer: keras.optimizers.LossScaleOptimizer

    def __init__(
        self, optimizer: keras.optimizers.LossScaleOptimizer, earlier: OptimizerTotals
    ) -> None:
        super().__init__(optimizer, earlier)
        self._scale, self._clean = self._scale_and_clean()
        self._first_scale = self._lowest = self._highest = self._scale
        self._skipped: int | None = 0

    def read(self, since: int, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the figures at `step`, if it is a new one and the optimizer was used."""
        if step <= since:
            return
        updates_before, scale_before, clean_before = self._updates, self._scale, self._clean
        self._steps += step - since
        self._updates = _updates(self.optimizer)
        self._scale, self._clean = self._scale_and_clean()
        self._lowest = min(self._lowest, self._scale)
        self._highest = max(self._highest, self._scale)
        updates = self._updates - updates_before
        growths = (clean_before + updates) // self.optimizer.dynamic_growth_steps
        skips = _skips(step - since, updates, scale_before, self._scale, growths)
        self._skipped = plus(self._skipped, skips)
        if self._is_used:
            yield step, self._row()

    @property
    def _is_used(self) -> bool:
        return self._updates > self._updates_before or self._skipped != 0

    def _row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            records.LEARNING_RATE: learning_rate(self.optimizer),
            records.SCALE: self._scale,
            records.GROWTH_COUNTER: self._clean,
        }
        skipped = plus(self._earlier.count("skipped_total"), self._skipped)
        return row if skipped is None else row | {records.SKIPPED_TOTAL: skipped}

    def totals(self) -> OptimizerTotals:
        """What was done up to the last read, earlier phases included."""
        earlier = self._earlier
        if not self._is_used:
            return earlier
        applied = self._updates - self._updates_before
        # Keras tells a bad loss from an overflow no more than it tells the step.
        bad_losses = 0 if self._skipped == 0 else None
        return dataclasses.replace(
            earlier,
            attempted=earlier.attempted + (plus(applied, self._skipped) or self._steps),
            applied=plus(earlier.applied, applied),
            counted=earlier.plus(
                {"skipped_total": self._skipped, "skipped_non_finite_loss": bad_losses}
            ),
            first_skips=earlier.first_skips if self._skipped == 0 else None,
            mode="dynamic",
            initial=self._first_scale if earlier.mode is None else earlier.initial,
            final=self._scale,
            lowest=min(earlier.lowest, self._lowest),
            highest=max(earlier.highest, self._highest),
        )

    def _scale_and_clean(self) -> tuple[float, int]:
        if not self.optimizer.built:
            return float(self.optimizer.initial_scale), 0
        scale = _number(self.optimizer.dynamic_scale)
        return float(scale), int(_number(self.optimizer.step_counter))


def _skips(steps: int, updates: int, before: float, after: float, growths: int) -> int | None:
    """Skips between two reads of Keras's own scaler; None where they cannot be told.

    Args:
        steps: Steps of the loop between them.
        updates: Updates that were applied.
        before: The scale at the first read.
        after: The scale at the second.
        growths: How often the scale can have grown at most.
    """
    if not (0.0 < after < math.inf and 0.0 < before < math.inf):
        return None
    halvings = round(math.log2(before / after))
    if growths == 0:
        return halvings
    skips = steps - updates
    return skips if skips >= 0 and 0 <= skips - halvings <= growths else None


def _updates(optimizer: keras.optimizers.Optimizer) -> int:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return int(_number(keras_internals.calls_of_apply(inner)))


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """An optimizer's learning rate now; waits for the device."""
    rate = optimizer.learning_rate
    return float(_number(rate) if isinstance(rate, keras.Variable) else tf.convert_to_tensor(rate))


def _number(variable: keras.Variable) -> np.ndarray:
    # Read through the tf.Variable: under a strategy a Keras variable has no __float__.
    return variable.value.numpy()


def reader_of(
    optimizer: keras.optimizers.Optimizer, earlier: OptimizerTotals | None
) -> OptimizerReader:
    """What reads an optimizer.

    Args:
        optimizer: Any Keras optimizer.
        earlier: What earlier phases of the run did, if there were any.
    """
    earlier = earlier or OptimizerTotals()
    if isinstance(optimizer, RecordedOptimizer):
        return HistoryReader(optimizer, earlier)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return KerasScaleReader(optimizer, earlier)
    return MarkReader(optimizer, earlier)
