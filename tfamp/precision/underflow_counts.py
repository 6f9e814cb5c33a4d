"""Counts what float16 loses of a gradient: the same one, at a loss scale and at a larger one."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# Exponents, floor(log2 |x|), that have a bin of their own. float16's smallest number is 2^-24; the
# others come with a loss scale, which is divided out. What is beyond is counted in the last bin.
FIRST_EXPONENT, LAST_EXPONENT = -48, 15
BINS = LAST_EXPONENT - FIRST_EXPONENT + 1

# How much larger the loss is in the last way back. What is smaller still is too small to be missed.
FACTOR = 2.0**8

# What an entry is that has no exponent; behind the exponents' bins.
KINDS = ("zero_anyway", "lost", "unjudged", "non_finite")
COLUMNS = BINS + len(KINDS)

_BIAS, _MANTISSA_BITS = 127, 23


class Gradients(NamedTuple):
    """One gradient, of three ways back.

    Attributes:
        plain: Float tensor, scaled as it is for the update.
        bounded: Scaled as much, with what is largest on the way back brought to a bound.
        more: Scaled by `FACTOR` more, with what is as large brought to a bound as much larger.
    """

    plain: tf.Tensor
    bounded: tf.Tensor
    more: tf.Tensor


def counted(gradients: Gradients, scale: tf.Tensor, counts: tf.Tensor | None) -> tf.Tensor:
    """Counts a gradient's entries.

    The two bounded ways differ by a factor that is a power of two, and in what underflows: an entry
    that is zero in the one and not in the other was lost. What is zero in both is zero anyway, as
    behind a ReLU or where a sum comes to exactly zero. One that is zero and not finite in the other
    cannot be judged. One that is not finite in the plain way has overflowed.

    Args:
        gradients: The gradient.
        scale: float32 scalar, what `plain` is scaled by.
        counts: bool tensor that broadcasts to its shape, False for entries that are none, such as a
            row of an embedding that nothing looked up; None counts all.

    Returns:
        int64 vector of `COLUMNS`: the finite entries that are not zero by the exponent of what they
        are without the scale, from `FIRST_EXPONENT` to `LAST_EXPONENT`; and the others by `KINDS`.
    """
    plain, bounded, more = gradients
    zero_anyway, lost, unjudged, non_finite, no_entry = range(BINS, COLUMNS + 1)
    is_more = tf.where(tf.math.is_finite(more), tf.where(more == 0, zero_anyway, lost), unjudged)
    zeros = tf.where(bounded == 0, is_more, zero_anyway)
    numbers = tf.where(tf.math.is_finite(plain), exponent_bins(plain, scale), non_finite)
    kinds = tf.where(plain == 0, zeros, numbers)
    if counts is not None:
        kinds = tf.where(counts, kinds, no_entry)
    # All in one pass. int64, as TensorFlow sums int32 on the host only.
    kinds = tf.reshape(kinds, [-1])
    ones = tf.ones_like(kinds, tf.int64)
    return tf.math.unsorted_segment_sum(ones, kinds, COLUMNS + 1)[:COLUMNS]


def exponent_bins(gradient: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Each number's bin, exactly.

    Args:
        gradient: Float tensor.
        scale: float32 scalar that it is divided by first.

    Returns:
        int32 tensor of its shape, from 0 to `BINS` - 1.
    """
    unscaled = tf.abs(tf.cast(gradient, tf.float32) / scale)
    # A float32's own exponent, as no logarithm is exact beside a power of two.
    bits = tf.bitwise.right_shift(tf.bitcast(unscaled, tf.int32), _MANTISSA_BITS)
    return tf.clip_by_value(bits - _BIAS - FIRST_EXPONENT, 0, BINS - 1)
