"""An optimizer that keeps exact books of its steps, on any number of replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import keras_internals, replicas
from tfamp.precision.accumulation import GradientAccumulator
from tfamp.precision.gradients import Gradient, gradient_figures
from tfamp.precision.inner_optimizer import inner_optimizer_of
from tfamp.precision.saved_state import SavedState
from tfamp.precision.scale_machine import ScaleState
from tfamp.precision.state_variables import StateVariables, reading
from tfamp.precision.step_gradients import StepGradients, step_gradients
from tfamp.precision.step_record import StepRecord
from tfamp.precision.unscaling import UnscaleCalls
from tfamp.run.scale_rules import ScaleRules

_DEFAULTS = {"history": 1024, "counts_zeros": False}


@keras.saving.register_keras_serializable(package="tfamp")
class RecordedOptimizer(keras.optimizers.LossScaleOptimizer):
    """Wraps an optimizer: sums over replicas, accumulates, and records every step.

    What trains without a loss scale: nothing is scaled and nothing skipped, and a non-finite
    gradient is applied, as a bare optimizer would. `LossScaleOptimizer` builds on it; a script that
    scales, unscales and applies runs unchanged with either.

    If the inner optimizer has `gradient_accumulation_steps`, this wrapper accumulates in its
    place: gradients are summed in float32 as they come, and one group is one step. Under a
    `tf.distribute` strategy, in whose scope the optimizer is made, the gradients are first summed
    over the replicas, once for each call of `apply`, and all the rest follows from the sum.

    It descends from Keras's wrapper, by which `compile` and `load_model` know that the loss scale
    is settled. They wrap any other optimizer under mixed_float16, and a saved model does not keep
    `compile(auto_scale_loss=False)`.

    Args:
        inner_optimizer: The `keras.optimizers.Optimizer` that updates the weights, or its name,
            such as `"adam"`, or config.
        name: Name of the optimizer.
        history: int, steps that `history()` holds.
        counts_zeros: bool, whether `history()` has the shares of gradient entries that are zero
            and that are not finite. Zeros are what underflowed and what is zero anyway, such as
            behind a ReLU: compare two runs. Of IndexedSlices only the rows that are there count,
            but with accumulation all rows do, as the group's sum is dense.
        rules: How the scale moves, in a subclass that has one.
        **scaling: What Keras's wrapper takes from such a subclass.

    Attributes:
        is_scaling: Whether the loss is multiplied by a scale at all.
        accumulation_steps: Calls of `apply` that make one update.
        accumulates: Whether that is more than one.
        history_size: Steps that `history()` holds at most.
    """

    is_scaling = False

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | dict[str, Any],
        name: str | None = None,
        *,
        history: int = 1024,
        counts_zeros: bool = False,
        rules: ScaleRules | None = None,
        **scaling: Any,
    ) -> None:
        if history < 1:
            raise ValueError(f"history={history}: it must be 1 or more.")
        inner = inner_optimizer_of(inner_optimizer)
        super().__init__(inner, name=name, **({"initial_scale": 1.0} | scaling))
        self.history_size = history
        self.counts_zeros = counts_zeros
        hysteresis = rules.hysteresis if rules else 1
        self._state = StateVariables(self.add_variable, self.initial_scale, hysteresis)
        # The names by which Keras's own wrapper is read.
        self.step_counter, self.dynamic_scale = self._state.growth_counter, self._state.scale
        # Keras would check each microbatch by itself and drop it from its group; see the class.
        self.accumulation_steps = inner.gradient_accumulation_steps or 1
        self.accumulates = self.accumulation_steps > 1
        inner.gradient_accumulation_steps = None
        self._accumulator = GradientAccumulator(self.accumulation_steps, self._state.microbatch)
        self._record = StepRecord(self._state, history)
        self._saved = SavedState(rules, inner, self._accumulator)
        self._unscale_calls = UnscaleCalls()

    # What Keras and loops call.

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Creates the inner optimizer's state and the accumulators, all float32."""
        if self.built:
            return
        self.inner_optimizer.build(var_list)
        # Past Keras's own wrapper, whose build would make the scale a second time.
        super(keras.optimizers.LossScaleOptimizer, self).build(var_list)
        self._accumulator.build(self.add_variable, var_list)
        # Keras takes up a variable that is assigned to the optimizer: these, behind all others.
        self._latest = self._state.latest
        self._saved.build(super(keras.optimizers.LossScaleOptimizer, self).variables)

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Notes a step's loss for `history()`, and returns what to differentiate: `scaled(loss)`.

        Args:
            loss: float tensor, nearly always a scalar: the loss of this replica, divided by the
                number of replicas as a Keras loss is: gradients and losses are summed over them.

        """
        loss = tf.cast(tf.convert_to_tensor(loss), tf.float32)
        self._record.note_loss(loss)
        return self.scaled(loss)

    def scaled(self, value: tf.Tensor) -> tf.Tensor:
        """What to take the gradient of in the place of a value that is not the step's loss.

        Unlike `scale_loss` it takes no note of it. For the inner gradient of a gradient penalty, or
        the terms of a loss whose gradients are taken one by one.

        Returns:
            float32 tensor of its shape: the value, multiplied by the loss scale where there is one.
        """
        self._unscale_calls.note_scaled()
        return tf.cast(tf.convert_to_tensor(value), tf.float32)

    def unscale(
        self,
        grads: Sequence[Gradient],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> list[Gradient]:
        """A step's gradients without the loss scale, to be clipped or looked at before `apply`.

        `apply` then wants to be told which ones it gets: these, changed or not, with
        `is_unscaled=True`, or those of the scaled loss with `is_unscaled=False`.

        >>> gradients = optimizer.unscale(tape.gradient(optimizer.scale_loss(loss), variables))
        >>> clipped, norm = tf.clip_by_global_norm(gradients, 1.0)
        >>> optimizer.apply(clipped, variables, is_unscaled=True)

        Under a strategy they are summed over the replicas; with accumulation they are those of one
        microbatch. In a tf.function of its own it is seen only while that is traced.

        Args:
            grads: Gradients of the scaled loss, as for `apply`.
            trainable_variables: What they are of; may be left out where all variables have one.

        Returns:
            float32 tensors, IndexedSlices (each row once) or None.
        """
        if trainable_variables is None and self.built:
            trainable_variables = keras_internals.trained_variables(self)
        is_first = self._unscale_calls.note_unscaled()
        gradients = step_gradients(grads, trainable_variables or []).over_replicas()
        return self._unscaled(gradients, is_first).values

    def apply(
        self,
        grads: Sequence[Gradient],
        trainable_variables: Sequence[keras.Variable] | None = None,
        *,
        is_unscaled: bool | None = None,
    ) -> None:
        """Takes one step, as the class describes.

        Args:
            grads: Gradients of what `scale_loss` returned, one per variable: float tensors,
                IndexedSlices or None.
            trainable_variables: The variables; may be left out once the optimizer is built.
            is_unscaled: bool, whether the gradients come from `unscale`. Must be said where that
                was called since the last `apply`.

        Raises:
            ValueError: Called outside a replica context, without variables before `build`, or
                without `is_unscaled` where it must be said.
        """
        if not self.built:
            if trainable_variables is None:
                raise ValueError(
                    "apply() came without variables before build(). Pass them, or build first."
                )
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        if not grads:
            return  # Keras's own do nothing here either: there is nothing to train.
        variables = trainable_variables or keras_internals.trained_variables(self)
        gradients = step_gradients(grads, variables)
        is_unscaled = self._unscale_calls.settle(is_unscaled)
        if replicas.several():
            keras_internals.take_gradients_as_they_come(self.inner_optimizer)
            gradients = self._record.over_replicas(gradients, is_summed=is_unscaled)
        if is_unscaled:
            gradients = self._scaled_again(gradients)
        if self.accumulates:
            self._accumulate(gradients)
        else:
            self._update(gradients)

    # A step, piece by piece. A subclass that scales has its own of the first three.

    def _unscaled(self, gradients: StepGradients, is_first: bool) -> StepGradients:
        return gradients.each(lambda value: tf.cast(value, tf.float32))

    def _scaled_again(self, gradients: StepGradients) -> StepGradients:
        return gradients

    def _take_step(
        self, gradients: StepGradients, before: ScaleState, is_finite: tf.Tensor
    ) -> ScaleState:
        self.inner_optimizer.apply(gradients.values, gradients.variables)
        return before._replace(attempted=before.attempted + 1)

    def _accumulate(self, gradients: StepGradients) -> None:
        indices = [keras_internals.index_of(self, variable) for variable in gradients.variables]
        pairs = zip(indices, gradients.values, strict=True)
        present = {index: value for index, value in pairs if value is not None}
        is_complete = self._accumulator.add(present)

        def update() -> None:
            means = [self._accumulator.mean(i) if i in present else None for i in indices]
            self._update(gradients._replace(values=means))
            self._accumulator.reset(list(present))

        def record() -> None:
            state = self._state.scale_state()
            learning_rate = self.inner_optimizer.learning_rate
            self._record.write(state, state.scale, learning_rate, is_update=0.0)

        replicas.cond(is_complete, update, record)

    def _update(self, gradients: StepGradients) -> None:
        before = self._state.scale_state()
        learning_rate = tf.cast(self.inner_optimizer.learning_rate, tf.float32)
        figures, is_finite = gradient_figures(gradients.values, before.scale, self.counts_zeros)
        self._state.grad_norm.assign(figures["grad_norm"])
        after = self._take_step(gradients, before, is_finite)
        self._state.become(after, before)
        self._record.write(after, before.scale, learning_rate, is_update=1.0, **figures)

    # What the host asks; each answer waits for the device.

    scale = reading("scale", float, "The loss scale now; 1 where nothing is scaled.")
    steps_attempted = reading("attempted", int, "Updates tried: applied and skipped.")
    skipped_total = reading("skipped_total", int, "Updates skipped for a non-finite gradient.")
    skipped_non_finite_loss = reading(
        "skipped_non_finite_loss", int, "Skips that no scale could help: of a non-finite loss."
    )
    grad_norm = reading("grad_norm", float, "Norm of the last gradient, unscaled and unclipped.")

    @property
    def steps_applied(self) -> int:
        """Updates that reached the weights."""
        return self.steps_attempted - self.skipped_total

    @property
    def notes_losses(self) -> bool:
        """Whether `scale_loss` was called on a step's loss, so that the history holds losses."""
        return self._record.notes_losses

    def history(self, since: int = 0) -> tuple[int, dict[str, np.ndarray]]:
        """The last steps, exactly, one entry a call of `apply`; see `StepHistory.read`."""
        return self._record.history.read(since)

    def history_count(self) -> tf.Tensor:
        """int64 scalar: entries of `history()` so far, on the device; asking does not wait."""
        return self._record.history.written()

    # Saving.

    def save_own_variables(self, store: Any) -> None:
        """Writes the state to a store of `.keras` or `.weights.h5`."""
        self._saved.write(store)

    def load_own_variables(self, store: Any) -> None:
        """Takes the state from a store, or refuses it; before `build` it is kept for that."""
        self._saved.read(store)

    def get_config(self) -> dict[str, Any]:
        """The arguments; the inner optimizer's accumulation is given back to it."""
        config = super().get_config()
        for name in () if self.is_scaling else ("initial_scale", "dynamic_growth_steps"):
            del config[name]
        if self.accumulates:
            inner = config["inner_optimizer"]["config"]
            inner["gradient_accumulation_steps"] = self.accumulation_steps
        # What was left at its default stays out, as Keras's own test of the config wants.
        given = {"history": self.history_size, "counts_zeros": self.counts_zeros}
        return config | {name: value for name, value in given.items() if value != _DEFAULTS[name]}

    def __dir__(self) -> list[str]:
        # Keras saves and loads what it finds here. `variables` holds the inner optimizer's state
        # already; a second copy doubles the file, and cannot be loaded before `build`.
        return [name for name in super().__dir__() if name != "inner_optimizer"]
