"""Loss scaling: one optimizer wrapper owns the scale, the skips and what is known of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import gradients as gradients_lib
from tfamp.precision import replicas, watch
from tfamp.precision.history import StepHistory
from tfamp.precision.readable import ReadableState
from tfamp.precision.saved_state import SavesState
from tfamp.precision.scale_machine import ScaleMachine
from tfamp.run.scale_rules import ScaleRules


@keras.saving.register_keras_serializable(package="tfamp")
class LossScaleOptimizer(ReadableState, SavesState, keras.optimizers.LossScaleOptimizer):
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
    `recovery_steps=None` and finite losses its trajectory is torch's, but for the floor and the
    ceiling; with the default too unless 8 skips stand in a row.

    With `dynamic=False` the scale never moves, `growth_counter` counts clean steps without end (3a
    sets it to 0), and only `max_skipped_in_a_row` makes a collapse; a non-finite step is still
    skipped.

    If the inner optimizer has `gradient_accumulation_steps`, this wrapper accumulates in its
    place: scaled gradients are summed in float32, the sum is checked once at the end of the
    group, and a skip discards that group alone. A group is then one step of the machine, and the
    inner optimizer's `iterations` and learning-rate schedule count updates.

    Under a `tf.distribute` strategy, in whose scope the optimizer is made, the gradients are first
    summed over the replicas, once for each call of `apply`, and all the rest follows from the sum:
    a value that is not finite on any replica makes every replica skip, clipping sees the whole
    gradient, and weights, scale and counters stay the same on all replicas.

    All state lives on the device and can be read at any time: `scale`, `growth_counter`,
    `steps_attempted` = `steps_applied` + `skipped_total`, `skipped_in_a_row`,
    `skipped_non_finite_loss`, `collapsed_at`, `grad_norm` (unscaled, before clipping) and
    `history()`. All of it but the history and the collapse is saved and restored by `.keras` files,
    `save_weights` and `load_weights`, and `tf.train.Checkpoint`. A file that stock
    Keras's `LossScaleOptimizer` wrote gives its scale, growth counter and inner state, through
    `load_weights` on a compiled model (of `.keras` files too) or a checkpoint. What does not fit
    raises; `load_weights` before `build` is remembered and taken up in `build`.

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
        recovery_steps: int, clean steps in a row before the scale grows while it climbs back, or
            None for torch's rule, which knows no climb.
        history: int, steps that `history()` holds.
        counts_zeros: bool, whether `history()` has the shares of gradient entries that are zero
            and that are not finite. Zeros are what underflowed and what is zero anyway, such as
            behind a ReLU: compare two runs. Of IndexedSlices only the rows that are there count,
            but with accumulation all rows do, as the group's sum is dense.

    Raises:
        ValueError: An argument is out of range or contradicts another.
    """

    _scales = True
    _notes_losses = False

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | dict[str, Any],
        initial_scale: float | None = None,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        *,
        dynamic: bool = True,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        min_scale: float = 2.0**-14,
        max_scale: float = 2.0**24,
        hysteresis: int = 1,
        max_skipped_in_a_row: int | None = 200,
        recovery_steps: int | None = 20,
        history: int = 1024,
        counts_zeros: bool = False,
        **kwargs: Any,
    ) -> None:
        inner_optimizer = _optimizer(inner_optimizer)
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                f"inner_optimizer is a {type(inner_optimizer).__name__} already: the loss would "
                "be scaled twice. Pass its own inner_optimizer."
            )
        if history < 1:
            raise ValueError(f"history={history}: it must be 1 or more.")
        if initial_scale is None:
            initial_scale = 2.0**15 if dynamic else inner_optimizer.loss_scale_factor
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
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, name, **kwargs)
        self.dynamic = dynamic
        self.counts_zeros = counts_zeros
        # Keras would check each microbatch by itself and drop it from its group; see the class.
        self._group_size = inner_optimizer.gradient_accumulation_steps or 1
        inner_optimizer.gradient_accumulation_steps = None
        self._accumulators: list[keras.Variable] = []
        self._machine = ScaleMachine(rules, self.add_variable)
        # The names by which Keras's own wrapper is read.
        self.step_counter = self._machine.growth_counter
        self.dynamic_scale = self._machine.scale
        self._microbatch = self.add_variable((), "zeros", "int64", name="microbatch")
        self._loss = self.add_variable((), "zeros", "float32", name="last_loss")
        self._grad_norm = self.add_variable((), "zeros", "float32", name="grad_norm")
        self._unread = {}
        # Not among `variables`: a record of this process, no state to be saved.
        self._history = StepHistory(history)

    # What Keras and loops call.

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Creates the inner optimizer's state and the accumulators, all float32."""
        if self.built:
            return
        self.inner_optimizer.build(var_list)
        # Past Keras's own wrapper, whose build would make the scale a second time.
        super(keras.optimizers.LossScaleOptimizer, self).build(var_list)
        if self._group_size > 1:
            self._accumulators = [
                self.add_variable(v.shape, "zeros", "float32", name=f"accumulator_{i}")
                for i, v in enumerate(var_list)
            ]
        for variable in self._machine.late.values():
            self._track_variable(variable)
        self._take_unread()
        self._machine.weights = tuple(getattr(v, "path", v.name) for v in var_list)
        if self._scales:
            watch.begin(self, self._machine)

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Multiplies a loss by the scale, in float32 whatever the loss's dtype.

        Also notes the loss for `history()`, and for the next update whether it is finite.

        Args:
            loss: float tensor, nearly always a scalar: the loss of this replica, divided by the
                number of replicas as a Keras loss is: gradients and losses are summed over them.

        Returns:
            float32 tensor of its shape. float16 ends at 65504, which a loss of 2 reaches at scale
            2^15.
        """
        loss = tf.cast(tf.convert_to_tensor(loss), tf.float32)
        if loss.shape.rank == 0:
            self._notes_losses = True
            self._loss.assign(loss)
        if self._scales:
            is_finite = tf.reduce_all(tf.math.is_finite(loss))
            noted = self._machine.late["noted_non_finite_loss"]
            noted.assign(tf.where(is_finite, noted.value, 1))
        return loss * self.dynamic_scale if self._scales else loss

    def apply(
        self,
        grads: Sequence[gradients_lib.Gradient],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Takes one step of the machine that the class describes.

        Args:
            grads: Gradients of the scaled loss, one per variable: float tensors, IndexedSlices
                or None.
            trainable_variables: The variables; may be left out once the optimizer is built.

        Raises:
            ValueError: Called outside a replica context, or without variables before `build`.
        """
        if tf.distribute.in_cross_replica_context():
            raise ValueError(
                "apply() was called in cross-replica context. Call it in a replica context, "
                "inside strategy.run()."
            )
        if not self.built:
            if trainable_variables is None:
                raise ValueError(
                    "apply() was called without variables on an optimizer that is not built. Pass "
                    "them, or call build(variables) first."
                )
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        if not grads:
            return  # Keras's own do nothing here either: there is nothing to train.
        if all(grad is None for grad in grads):
            raise ValueError(
                f"apply() got no gradient for any of {len(grads)} variables: all are None. Compute "
                "the loss from these variables, inside the tape's `with`."
            )
        variables = list(trainable_variables or self._trainable_variables)
        if self._scales and self._machine.models is None:
            self._machine.models = watch.models_of_callers(variables)
        grads = [gradients_lib.densified(g) for g in grads]
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if num_replicas > 1:
            grads = self._over_replicas(grads, variables, num_replicas)
        if self._group_size == 1:
            self._update(grads, variables)
        else:
            self._accumulate(grads, variables)

    def _over_replicas(
        self,
        grads: list[gradients_lib.Gradient],
        variables: list[keras.Variable],
        num_replicas: int,
    ) -> list[gradients_lib.Gradient]:
        replicas.take_summed(self.inner_optimizer)
        noted = self._machine.late["noted_non_finite_loss"]
        scalars = tf.stack([self._loss.value, tf.cast(noted.value, tf.float32)])
        grads, scalars = replicas.summed(grads, scalars)
        self._loss.assign(scalars[0])
        noted.assign(tf.cast(scalars[1] > 0, tf.int64))
        for i, (grad, variable) in enumerate(zip(grads, variables, strict=True)):
            # What overwrites a variable is its next value, not a share of a sum.
            if grad is not None and self._overwrite_variable_with_gradient(variable):
                grads[i] = grad / num_replicas
        return grads

    def _accumulate(
        self, grads: list[gradients_lib.Gradient], variables: list[keras.Variable]
    ) -> None:
        sums = {}
        for i, (grad, variable) in enumerate(zip(grads, variables, strict=True)):
            if grad is not None:
                sums[i] = self._accumulators[self._get_variable_index(variable)]
                sums[i].assign_add(tf.cast(tf.convert_to_tensor(grad), tf.float32))
        is_last = tf.equal(self._microbatch.assign_add(1), self._group_size)

        def update() -> None:
            mean = [
                sums[i].value / self._group_size if i in sums else None for i in range(len(grads))
            ]
            self._update(mean, variables)
            self._microbatch.assign(0)
            for total in sums.values():
                total.assign(tf.zeros_like(total.value))

        replicas.cond(
            is_last, update, lambda: self._record(self.dynamic_scale.value, is_update=False)
        )

    def _update(self, grads: list[gradients_lib.Gradient], variables: list[keras.Variable]) -> None:
        scale = tf.identity(self.dynamic_scale.value)
        learning_rate = tf.cast(self.inner_optimizer.learning_rate, tf.float32)
        scaled_norm, is_finite = gradients_lib.global_norm(grads)
        self._grad_norm.assign(scaled_norm / scale)
        fractions = (np.nan, np.nan)
        if self.counts_zeros:
            fractions = gradients_lib.zero_and_non_finite_fractions(grads, is_finite)
        if self._scales:
            noted = self._machine.late["noted_non_finite_loss"]
            is_loss_finite = tf.equal(noted.value, 0)
            replicas.cond(
                is_finite,
                lambda grads, scale, _: self._apply_clean(grads, variables, scale),
                lambda grads, _, is_loss_finite: self._skip(grads, variables, is_loss_finite),
                args=(grads, scale, is_loss_finite),
            )
            noted.assign(tf.zeros_like(noted.value))
        else:
            self._machine.attempted.assign_add(1)
            self.inner_optimizer.apply(grads, variables)
        self._record(scale, True, learning_rate, fractions)

    def _apply_clean(
        self,
        grads: list[gradients_lib.Gradient],
        variables: list[keras.Variable],
        scale: tf.Tensor,
    ) -> None:
        unscaled = [
            grad if self._overwrite_variable_with_gradient(variable) else _divided(grad, scale)
            for grad, variable in zip(grads, variables, strict=True)
        ]
        self.inner_optimizer.apply(unscaled, variables)
        self._machine.step_clean()

    def _skip(
        self,
        grads: list[gradients_lib.Gradient],
        variables: list[keras.Variable],
        is_loss_finite: tf.Tensor,
    ) -> None:
        position, has_nan = gradients_lib.first_non_finite(grads)
        indices = [self._get_variable_index(variable) for variable in variables]
        culprit = tf.gather(tf.constant(indices, tf.int64), position)
        self._machine.step_skipped(is_loss_finite, culprit, has_nan)

    def _record(
        self,
        scale: tf.Tensor,
        is_update: bool,
        learning_rate: tf.Tensor | None = None,
        fractions: tuple[tf.Tensor | float, tf.Tensor | float] = (np.nan, np.nan),
    ) -> None:
        if learning_rate is None:
            learning_rate = tf.cast(self.inner_optimizer.learning_rate, tf.float32)
        self._history.write(
            {
                "loss": self._loss.value,
                "learning_rate": learning_rate,
                "scale": scale,
                "growth_counter": self.step_counter.value,
                "skipped_total": self._machine.skipped_total.value,
                "skipped_in_a_row": self._machine.skipped_in_a_row.value,
                "skipped_non_finite_loss": self._machine.late["skipped_non_finite_loss"].value,
                "grad_norm": self._grad_norm.value if is_update else np.nan,
                "grad_zero_fraction": fractions[0],
                "grad_non_finite_fraction": fractions[1],
                "is_update": float(is_update),
            }
        )

    @property
    def accumulates(self) -> bool:
        """Whether an update takes more than one call of `apply`."""
        return self._group_size > 1

    def has_skipped(self) -> tf.Tensor:
        """Whether the last call of `apply` was a skip, a bool scalar on the device."""
        is_update = tf.equal(self._microbatch.value, 0)
        return is_update & (self._machine.skipped_in_a_row.value > 0)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """What Keras calls at the end of `fit`: ends averages, and tells what went wrong."""
        super().finalize_variable_values(var_list)
        watch.tell(self._machine)

    # Saving.

    def get_config(self) -> dict[str, Any]:
        """The arguments; the inner optimizer's accumulation is given back to it."""
        config = super().get_config()
        if self._group_size > 1:
            config["inner_optimizer"]["config"]["gradient_accumulation_steps"] = self._group_size
        # What was left at its default stays out, as Keras's own test of the config wants.
        ours = dataclasses.asdict(self._machine.rules)
        ours |= {"history": self.history_size, "counts_zeros": self.counts_zeros}
        return config | {
            name: value for name, value in ours.items() if value != _DEFAULTS.get(name, value)
        }


_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(LossScaleOptimizer.__init__).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def _divided(grad: gradients_lib.Gradient, scale: tf.Tensor) -> gradients_lib.Gradient:
    if grad is None:
        return None
    if isinstance(grad, tf.IndexedSlices):
        values = tf.cast(grad.values, tf.float32) / scale
        return tf.IndexedSlices(values, grad.indices, grad.dense_shape)
    return tf.cast(grad, tf.float32) / scale


def _optimizer(given: Any) -> keras.optimizers.Optimizer:
    """What `compile` would make of a name or a config; an optimizer as it is."""
    try:
        optimizer = keras.optimizers.get(given)
    except ValueError as error:
        raise _no_optimizer(given) from error
    if optimizer is None:
        raise _no_optimizer(given)
    return optimizer


def _no_optimizer(given: Any) -> ValueError:
    return ValueError(
        f"inner_optimizer={given!r}: it must be a keras.optimizers.Optimizer or the name of one. "
        "Pass keras.optimizers.Adam(1e-3), for example, or 'adam'."
    )
