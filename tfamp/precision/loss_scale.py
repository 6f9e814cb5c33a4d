"""Loss scaling: an optimizer that owns the scale, the skips and what is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfamp.precision import keras_internals, replicas, watch
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.collapse_note import CollapseNote
from tfamp.precision.gradients import Gradient, first_non_finite
from tfamp.precision.inner_optimizer import inner_optimizer_of
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.precision.scale_machine import ScaleState, after_step, is_collapse
from tfamp.precision.state_variables import reading
from tfamp.precision.step_gradients import StepGradients
from tfamp.precision.unscaling import UnscaledOverflow
from tfamp.run.scale_rules import ScaleRules


@keras.saving.register_keras_serializable(package="tfamp")
class LossScaleOptimizer(RecordedOptimizer):
    """Wraps an optimizer so that float16 gradients neither vanish nor overflow unseen.

    The loss is multiplied by `scale` before the gradient is taken and the gradient is divided by
    it afterwards, in float32 (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2). A subclass
    of `keras.optimizers.LossScaleOptimizer`, which takes its place in `compile` or in a loop of
    your own:

    >>> optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    >>> model.compile(optimizer, loss="mse")

    One call of `apply` is one step of this machine, and one row of `history()`:

    1. `steps_attempted` grows by 1. The gradients, still scaled, are checked: if all values are
       finite the step is clean, else it is a skip. The row keeps the scale from before the step,
       the loss and the gradient norm as they were, and the counters as the step leaves them.
    2. A clean step hands the unscaled gradients to the inner optimizer, sets `skipped_in_a_row` to
       0 and adds 1 to `growth_counter`. When that reaches `dynamic_growth_steps` it returns to 0
       and the scale becomes `min(scale * growth_factor, max_scale)`.
    3. A skip leaves weights, slots, averages and `iterations` alone and adds 1 to `skipped_total`
       and `skipped_in_a_row`. What more it does depends on the loss that `scale_loss` has seen
       since the last update:
       a. It was finite, or `scale_loss` was not called: the gradient overflowed under the scale.
          `growth_counter` becomes 0. The first `hysteresis - 1` such skips since the last growth
          (or the start) leave the scale; each later one makes it
          `max(scale * backoff_factor, min_scale)`.
       b. It was NaN or infinite before it was scaled (bad data, an overflow on the way forward),
          in any entry, microbatch or replica. That says nothing about the scale: scale,
          `growth_counter` and hysteresis stay, and `skipped_non_finite_loss` grows by 1.
    4. Recovery: after 8 or more skips of kind 3a with no clean step between them, the scale climbs
       back by `growth_factor` every `min(dynamic_growth_steps, recovery_steps)` clean steps, up to
       the scale of the last clean step before them (`initial_scale` if there was none). A skip of
       kind 3a during the climb ends it. From 2^-14 to 2^15 that takes 580 steps instead of 58,000.
    5. A skip of kind 3a at a scale that is `min_scale` already, or one that takes
       `skipped_in_a_row` above `max_skipped_in_a_row`, is a collapse. Nothing freezes: a later step
       whose gradients are finite is clean. The first collapse is kept in `collapsed_at` until
       `raise_if_collapsed` takes it, as tfamp's loops and callback do at their next read; a script
       without them is told on stderr within about ten seconds, at the end of `fit`, or at exit.

    The new scale is computed in float64 and rounded to float32, as torch's GradScaler does. With
    `recovery_steps=None` and finite losses its trajectory is torch's, but for floor and ceiling.

    With `dynamic=False` the scale never moves, `growth_counter` counts clean steps without end (3a
    sets it to 0), only `max_skipped_in_a_row` makes a collapse, and non-finite steps are skipped.

    With `gradient_accumulation_steps` a group is one step of the machine: the sum of its scaled
    gradients is checked once, at its end, and a skip discards that group alone. Under a
    `tf.distribute` strategy the sum over the replicas is checked: a value that is not finite on any
    replica makes every replica skip, and weights, scale and counters stay the same on all.

    All state lives on the device and can be read at any time: `scale`, `growth_counter`,
    `steps_attempted` = `steps_applied` + `skipped_total`, `skipped_in_a_row`,
    `skipped_non_finite_loss`, `collapsed_at`, `grad_norm` (unscaled, before clipping) and
    `history()`. All of it but the history and the collapse is saved and restored by `.keras` files,
    `save_weights` and `load_weights`, and `tf.train.Checkpoint`. A file of Keras's own
    `LossScaleOptimizer` gives its scale, growth counter and inner state, through `load_weights` on
    a compiled model (of `.keras` files too) or a checkpoint. What does not fit raises.

    Args:
        inner_optimizer: The `keras.optimizers.Optimizer` that updates the weights, or its name,
            such as `"adam"`, or config.
        initial_scale: float, the scale at the first step. 2^15 if None; with `dynamic=False` the
            inner optimizer's `loss_scale_factor`, and an error where there is none either.
        dynamic_growth_steps: int, clean steps in a row before the scale grows.
        name: Name of the optimizer.
        dynamic: bool, whether the scale moves.
        growth_factor: float above 1.
        backoff_factor: float between 0 and 1.
        min_scale: float, the floor; at least 2^-126 so that dividing by it stays finite.
        max_scale: float, the ceiling.
        hysteresis: int, skips that are borne before the scale falls (Megatron-LM's term).
        max_skipped_in_a_row: int, or None for no limit but the floor.
        recovery_steps: int, clean steps before the scale grows while it climbs back; None: never.
        history: See `RecordedOptimizer`, as for `counts_zeros`.

    Raises:
        ValueError: An argument is out of range or contradicts another.
    """

    is_scaling = True

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | dict[str, Any],
        initial_scale: float | None = None,
        dynamic_growth_steps: int = ScaleRules.dynamic_growth_steps,
        name: str | None = None,
        *,
        dynamic: bool = ScaleRules.dynamic,
        growth_factor: float = ScaleRules.growth_factor,
        backoff_factor: float = ScaleRules.backoff_factor,
        min_scale: float = ScaleRules.min_scale,
        max_scale: float = ScaleRules.max_scale,
        hysteresis: int = ScaleRules.hysteresis,
        max_skipped_in_a_row: int | None = ScaleRules.max_skipped_in_a_row,
        recovery_steps: int | None = ScaleRules.recovery_steps,
        history: int = 1024,
        counts_zeros: bool = False,
        **kwargs: Any,
    ) -> None:
        inner = inner_optimizer_of(inner_optimizer)
        if initial_scale is None:
            initial_scale = ScaleRules.initial_scale if dynamic else inner.loss_scale_factor
        if initial_scale is None:
            raise ValueError(
                "dynamic=False without a scale: it must be given. Pass initial_scale, or set "
                "`loss_scale_factor` on the inner_optimizer."
            )
        rules = ScaleRules(
            initial_scale=initial_scale,
            dynamic_growth_steps=dynamic_growth_steps,
            dynamic=dynamic,
            growth_factor=growth_factor,
            backoff_factor=backoff_factor,
            min_scale=min_scale,
            max_scale=max_scale,
            hysteresis=hysteresis,
            max_skipped_in_a_row=max_skipped_in_a_row,
            recovery_steps=recovery_steps,
        )
        super().__init__(
            inner,
            name,
            history=history,
            counts_zeros=counts_zeros,
            rules=rules,
            initial_scale=initial_scale,
            dynamic_growth_steps=dynamic_growth_steps,
            **kwargs,
        )
        self.rules = rules
        self.dynamic = dynamic
        self._collapse = CollapseNote(self._state, rules)
        self.announcements = watch.Announcements(self._state, self._collapse)
        self._overflow = UnscaledOverflow()

    # What Keras and loops call.

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Creates the inner optimizer's state and the accumulators, all float32."""
        if not self.built:
            super().build(var_list)
            self._collapse.name_weights(var_list)
            watch.begin(self, self.announcements)

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Multiplies a loss by the scale; see `RecordedOptimizer.scale_loss`.

        Also notes for the next update whether it is finite.

        Returns:
            float32 tensor of its shape. float16 ends at 65504, which a loss of 2 reaches at scale
            2^15.
        """
        loss = tf.cast(tf.convert_to_tensor(loss), tf.float32)
        self._record.note_finiteness(loss)
        return super().scale_loss(loss)

    def scaled(self, value: tf.Tensor) -> tf.Tensor:
        """Multiplies a value by the scale, in float32; see `RecordedOptimizer.scaled`."""
        return super().scaled(value) * self.dynamic_scale

    def apply(
        self,
        grads: Sequence[Gradient],
        trainable_variables: Sequence[keras.Variable] | None = None,
        *,
        is_unscaled: bool | None = None,
    ) -> None:
        """Takes one step of the machine that the class describes; see `RecordedOptimizer.apply`."""
        super().apply(grads, trainable_variables, is_unscaled=is_unscaled)
        self.announcements.look_for_models(keras_internals.trained_variables(self))

    def has_skipped(self) -> tf.Tensor:
        """Whether the last call of `apply` was a skip, a bool scalar on the device."""
        is_update = tf.equal(self._state.microbatch.value, 0)
        return is_update & (self._state.skipped_in_a_row.value > 0)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """What Keras calls at the end of `fit`: ends averages, and tells what went wrong."""
        super().finalize_variable_values(var_list)
        self.announcements.tell()

    # A step.

    def _unscaled(self, gradients: StepGradients, is_first: bool) -> StepGradients:
        self._overflow.note(gradients.values, is_first)
        return _divided(gradients, tf.convert_to_tensor(self.dynamic_scale.value))

    def _scaled_again(self, gradients: StepGradients) -> StepGradients:
        scale = self.dynamic_scale
        values = self._overflow.put_back(gradients.values)
        return gradients._replace(values=values).each(lambda value: value * scale)

    def _take_step(
        self, gradients: StepGradients, before: ScaleState, is_finite: tf.Tensor
    ) -> ScaleState:
        noted = self._state.noted_non_finite_loss
        is_loss_finite = tf.equal(noted.value, 0)
        after = after_step(self.rules, before, is_finite, is_loss_finite)

        def apply(values: list[Gradient], before: ScaleState, *_: Any) -> None:
            clean = _divided(gradients._replace(values=values), before.scale)
            self.inner_optimizer.apply(clean.values, clean.variables)

        def skip(
            values: list[Gradient], before: ScaleState, after: ScaleState, is_loss_finite: tf.Tensor
        ) -> None:
            position, has_nan = first_non_finite(values)
            indices = [keras_internals.index_of(self, v) for v in gradients.variables]
            culprit = tf.gather(tf.constant(indices, tf.int64), position)
            collapses = is_collapse(self.rules, before, after, is_loss_finite)
            self._collapse.write(collapses, before, after, is_loss_finite, culprit, has_nan)

        args = (gradients.values, before, after, is_loss_finite)
        replicas.cond(is_finite, apply, skip, args=args)
        noted.assign(tf.zeros_like(noted.value))
        return after

    # What the host asks; each answer waits for the device.

    growth_counter = reading("growth_counter", int, "Clean steps since the scale last moved.")
    skipped_in_a_row = reading("skipped_in_a_row", int, "Skips since the last applied update.")

    @property
    def collapsed_at(self) -> int | None:
        """The attempted step, from 1, of a collapse that nobody has taken yet; else None."""
        return self._collapse.read_step()

    def take_collapse(self) -> LossScaleCollapse | None:
        """The collapse that nobody has taken yet, which ends it; training may go on."""
        return self._collapse.take()

    def raise_if_collapsed(self) -> None:
        """Raises if loss scaling has collapsed since the last call; reads from the device.

        Raises:
            LossScaleCollapse: Says when, at which scale, how many skips, and which gradient.
        """
        collapse = self.take_collapse()
        if collapse is not None:
            raise collapse

    @property
    def announces(self) -> bool:
        """Whether collapses and skips of bad losses are told on stderr, unless others tell them."""
        return self.announcements.is_on

    @announces.setter
    def announces(self, value: bool) -> None:
        self.announcements.is_on = value

    # Saving.

    def load_own_variables(self, store: Any) -> None:
        """Takes the state from a store; a collapse was an event of the process that wrote it."""
        super().load_own_variables(store)
        self._collapse.forget()

    def get_config(self) -> dict[str, Any]:
        """The arguments; the inner optimizer's accumulation is given back to it."""
        config = super().get_config()
        rules = {rule.name: getattr(self.rules, rule.name) for rule in _RULES}
        return {
            rule.name: rules[rule.name] for rule in _RULES if rules[rule.name] != rule.default
        } | config


_RULES = dataclasses.fields(ScaleRules)


def _divided(gradients: StepGradients, scale: tf.Tensor) -> StepGradients:
    return gradients.each(lambda value: tf.cast(value, tf.float32) / scale)
