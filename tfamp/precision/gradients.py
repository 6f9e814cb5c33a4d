"""Norm, finiteness and zeros of a gradient, exact where float32 sums are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

# Sums of squares between these bounds are trusted: nothing in them overflowed, and what
# underflowed is too small to be seen beside the rest.
_SMALLEST_TRUSTED = 2.0**-80
_LARGEST_TRUSTED = 2.0**120

# Elements up to which gradients are copied into one vector before they are squared.
_LARGEST_JOINED = 2**16

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices | None


def densified(gradient: Gradient) -> Gradient:
    """Sums an IndexedSlices' repeated rows, so that its values are the gradient's own.

    An embedding looked up twice in a batch has two slices for one row; their norm is not
    the row's norm, and both may be finite where their sum is not.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, positions = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, positions, tf.shape(rows)[0])
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def values_of(gradients: Sequence[Gradient]) -> list[tf.Tensor]:
    """The dense float32 values of the gradients that there are; None is passed over."""
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    return [tf.cast(value, tf.float32) for value in values if value is not None]


def global_norm(gradients: Sequence[Gradient]) -> tuple[tf.Tensor, tf.Tensor]:
    """The L2 norm over all gradients, and whether every value is finite.

    One pass over the values decides nearly always. Where the sum of squares leaves the range in
    which float32 can be trusted (gradients above 2^60, as a large loss scale makes, or all below
    2^-40), a second pass looks at each value and scales before it squares.

    Args:
        gradients: Float tensors or IndexedSlices (with rows summed, see `densified`) or None.

    Returns:
        norm: float32 scalar. Non-finite if a value is non-finite, or if the norm itself exceeds
            float32.
        is_finite: bool scalar; True exactly if all values are finite.
    """
    values = _joined(values_of(gradients))
    if not values:
        return tf.zeros([], tf.float32), tf.constant(True)
    squares = 2.0 * tf.add_n([tf.nn.l2_loss(value) for value in values])
    trusted = (squares > _SMALLEST_TRUSTED) & (squares < _LARGEST_TRUSTED)
    return tf.cond(
        trusted,
        lambda: (tf.sqrt(squares), tf.constant(True)),
        lambda: _careful_norm(values, squares),
    )


def zero_and_non_finite_fractions(
    gradients: Sequence[Gradient], is_finite: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The share of the entries that are exactly zero, and of those that are NaN or infinite.

    Of IndexedSlices the rows that are there are counted: a row that no example looked up is zero
    without having vanished. Counts are int64 up to the one division at the end: in float32 they
    would be exact to 2^24 only, which one large embedding exceeds.

    Args:
        gradients: As for `global_norm`.
        is_finite: bool scalar, what `global_norm` said of them.

    Returns:
        zeros: float32 scalar from 0 to 1; NaN where there are no entries at all.
        non_finite: Likewise.
    """
    values = _joined(values_of(gradients))
    if not values:
        return tf.constant(math.nan), tf.constant(math.nan)
    total = tf.add_n([tf.size(value, tf.int64) for value in values])
    zeros = _count([tf.equal(value, 0.0) for value in values])
    # Nearly every step is finite, and has been looked through for that already.
    non_finite = tf.cond(
        is_finite,
        lambda: tf.zeros([], tf.int64),
        lambda: _count([~tf.math.is_finite(value) for value in values]),
    )
    return _share(zeros, total), _share(non_finite, total)


def gradient_figures(
    gradients: Sequence[Gradient], scale: tf.Tensor, counts_zeros: bool
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """What a step's record has of its gradients.

    Args:
        gradients: As for `global_norm`; of a scaled loss.
        scale: float32 scalar, its scale.
        counts_zeros: Whether to count zeros and non-finite entries.

    Returns:
        figures: float32 scalars by their names in the history.
        is_finite: bool scalar; True exactly if all values are finite.
    """
    scaled_norm, is_finite = global_norm(gradients)
    figures = {"grad_norm": scaled_norm / scale}
    if counts_zeros:
        zeros, non_finite = zero_and_non_finite_fractions(gradients, is_finite)
        figures |= {"grad_zero_fraction": zeros, "grad_non_finite_fraction": non_finite}
    return figures, is_finite


def _count(flags: list[tf.Tensor]) -> tf.Tensor:
    # int64, as TensorFlow sums int32 on the host only.
    return tf.add_n([tf.reduce_sum(tf.cast(flag, tf.int64)) for flag in flags])


def _share(count: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(count, tf.float64) / tf.cast(total, tf.float64), tf.float32)


def _joined(values: list[tf.Tensor]) -> list[tf.Tensor]:
    # A small model has many small gradients, and a kernel for each costs more than its work.
    small: list[tf.Tensor] = []
    large: list[tf.Tensor] = []
    for value in values:
        size = value.shape.num_elements()
        (small if size is not None and size <= _LARGEST_JOINED else large).append(value)
    if not small:
        return large
    return [tf.concat([tf.reshape(value, [-1]) for value in small], axis=0), *large]


def _careful_norm(values: list[tf.Tensor], squares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])
    largest = tf.reduce_max([tf.reduce_max(tf.abs(value), axis=None) for value in values])
    safe = tf.where(is_finite & (largest > 0), largest, 1.0)
    scaled = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(value / safe) for value in values]))
    return tf.where(is_finite, tf.where(largest > 0, safe * scaled, 0.0), squares), is_finite


def first_non_finite(gradients: Sequence[Gradient]) -> tuple[tf.Tensor, tf.Tensor]:
    """Which gradient is the first that holds a non-finite value, and whether it holds a NaN.

    Args:
        gradients: As for `global_norm`; positions count None entries too.

    Returns:
        index: int64 scalar, -1 if all are finite.
        has_nan: bool scalar, False where that gradient holds infinities only.
    """
    positions = [i for i, gradient in enumerate(gradients) if gradient is not None]
    values = values_of(gradients)
    bad = tf.stack([tf.reduce_any(~tf.math.is_finite(value)) for value in values])
    nan = tf.stack([tf.reduce_any(tf.math.is_nan(value)) for value in values])
    first = tf.argmax(tf.cast(bad, tf.int32))
    index = tf.where(
        tf.reduce_any(bad),
        tf.gather(tf.constant(positions, tf.int64), first),
        tf.constant(-1, tf.int64),
    )
    return index, tf.gather(nan, first)
