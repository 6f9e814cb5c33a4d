"""The first collapse of a loss scale, kept on the device until the host takes it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.scale_machine import ScaleState
from tfamp.precision.state_variables import StateVariables, device_variable
from tfamp.run.scale_rules import ScaleRules


class CollapseNote:
    """Notes a collapse in a step, and tells of it afterwards.

    Args:
        variables: The optimizer's state.
        rules: How its scale moves.
    """

    def __init__(self, variables: StateVariables, rules: ScaleRules) -> None:
        self._variables = variables
        self._rules = rules
        # The paths of the trained variables, for whoever is told.
        self._weights: tuple[str, ...] = ()
        # An event of this process and no state to be saved: a file of a run that had collapsed
        # starts clean. Whether one waits for the host, and what it was at that step: the scale,
        # the skips in a row, those in all, and whether the loss was finite.
        self.facts = device_variable("collapse", np.zeros(5), "float64")

    def name_weights(self, trained: Sequence[keras.Variable]) -> None:
        """Takes note of what the trained variables are called, in the optimizer's order."""
        self._weights = tuple(getattr(v, "path", v.name) for v in trained)

    def write(
        self,
        collapses: tf.Tensor,
        before: ScaleState,
        after: ScaleState,
        is_loss_finite: tf.Tensor,
        culprit: tf.Tensor,
        has_nan: tf.Tensor,
    ) -> None:
        """After a skipped step: notes it if it is a collapse and none waits for the host.

        Args:
            collapses: bool scalar, whether it is one.
            before: The state before the step.
            after: The state after it.
            is_loss_finite: bool scalar, whether the step's own loss was finite.
            culprit: int64 scalar, the index of the variable whose gradient was not finite.
            has_nan: bool scalar, whether that gradient held a NaN.
        """
        is_first = collapses & tf.equal(self.facts.value[0], 0.0)
        facts = [1.0, before.scale, after.skipped_in_a_row, after.skipped_total, is_loss_finite]
        for variable, value in (
            (self.facts, tf.stack([tf.cast(fact, tf.float64) for fact in facts])),
            (self._variables.collapsed_at, after.attempted),
            (self._variables.culprit, culprit),
            (self._variables.culprit_has_nan, tf.cast(has_nan, tf.int64)),
        ):
            variable.assign(tf.where(is_first, value, variable.value))

    # What the host asks; each answer waits for the device.

    def read_step(self) -> int | None:
        """The attempted step of a collapse that nobody has taken yet, if there is one."""
        is_waiting = self.facts.value.numpy()[0]
        return int(self._variables.read("collapsed_at")) if is_waiting else None

    def read(self) -> LossScaleCollapse | None:
        """The collapse that nobody has taken yet, if there is one."""
        step = self.read_step()
        if step is None:
            return None
        _, scale, in_a_row, in_all, is_loss_finite = self.facts.value.numpy().tolist()
        read = self._variables.read
        skipped_total = int(read("skipped_total"))
        return LossScaleCollapse(
            step=step,
            read_at=int(read("attempted")),
            scale=scale,
            min_scale=self._rules.min_scale if self._rules.dynamic else None,
            skipped_in_a_row=int(in_a_row),
            skipped_total=skipped_total,
            skipped_since=skipped_total - int(in_all),
            scale_now=read("scale"),
            skipped_non_finite_loss=int(read("skipped_non_finite_loss")),
            variable=self._weights[int(read("culprit"))],
            has_nan=bool(read("culprit_has_nan")),
            is_loss_finite=bool(is_loss_finite),
        )

    def take(self) -> LossScaleCollapse | None:
        """Hands over the collapse that nobody has taken yet, and forgets it."""
        collapse = self.read()
        if collapse is not None:
            self.forget()
        return collapse

    def forget(self) -> None:
        """Ends a collapse: it was taken, or belongs to a state that is no more."""
        self.facts.assign(np.zeros(5))
        self._variables.collapsed_at.assign(0)
