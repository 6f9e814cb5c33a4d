"""Many replicas, one decision: what loss scaling needs of `tf.distribute`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfamp.precision import gradients as gradients_lib
from tfamp.precision import keras_internals


def several() -> bool:
    """Whether more than one replica is in sync here."""
    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def summed(
    grads: Sequence[gradients_lib.Gradient], scalars: tf.Tensor
) -> tuple[list[gradients_lib.Gradient], tf.Tensor]:
    """Sums gradients and some scalars over the replicas, all in one reduction.

    Call it in a replica context with more than one replica in sync.

    Args:
        grads: This replica's float tensors, IndexedSlices or None.
        scalars: float32 vector, this replica's shares, of the loss among others.

    Returns:
        grads: The sums, float32 and the same on every replica.
        scalars: Their sums.
    """
    # float32 first: float16 gradients that are finite by themselves may overflow in the sum.
    present = [_as_float32(grad) for grad in grads if grad is not None]
    context = tf.distribute.get_replica_context()
    # A copy on the replica's own device; what lies elsewhere breaks the batch into single sums.
    *sums, scalars = context.all_reduce(
        tf.distribute.ReduceOp.SUM, [*present, tf.identity(scalars)]
    )
    remaining = iter(sums)
    # The slices of two replicas may name the same row.
    return [
        None if grad is None else gradients_lib.densified(next(remaining)) for grad in grads
    ], scalars


def cond(
    is_true: tf.Tensor,
    if_true: Callable[..., None],
    if_false: Callable[..., None],
    args: Sequence[Any] = (),
) -> None:
    """`tf.cond` for a replica context whose branches may call an optimizer's `apply`.

    Most strategies update variables through `merge_call`, which may not stand in a branch of a
    replica's own `tf.cond`: there the branch is taken once, for all replicas, in cross-replica
    context, and runs on each.

    Args:
        is_true: bool scalar, the same on every replica.
        if_true: Called with `args` in a replica context.
        if_false: Likewise.
        args: Values of this replica. What a branch uses and differs between replicas, as every
            tensor does, must come in here.
    """
    if keras_internals.updates_in_replica_context():
        tf.cond(is_true, lambda: if_true(*args), lambda: if_false(*args))
        return

    def across(strategy: tf.distribute.Strategy, is_true: Any, *args: Any) -> None:
        def on_each(branch: Callable[..., None]) -> Callable[[], None]:
            def run() -> None:
                strategy.extended.call_for_each_replica(branch, args=args)

            return run

        first = strategy.experimental_local_results(is_true)[0]
        tf.cond(first, on_each(if_true), on_each(if_false))

    tf.distribute.get_replica_context().merge_call(across, args=(is_true, *args))


def _as_float32(grad: tf.Tensor | tf.IndexedSlices) -> tf.Tensor | tf.IndexedSlices:
    if isinstance(grad, tf.IndexedSlices):
        values = tf.cast(grad.values, tf.float32)
        return tf.IndexedSlices(values, grad.indices, grad.dense_shape)
    return tf.cast(grad, tf.float32)
