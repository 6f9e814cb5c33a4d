"""The bits of floats, in a graph: kernels may take a subnormal number for zero, bits do not."""

from __future__ import annotations

import tensorflow as tf

from tfamp.precision import formats

# Of float64.
NUM_EXPONENTS = 2**11
BIAS = 1023
_INTEGERS = {2: tf.uint16, 4: tf.int32, 8: tf.int64}


def magnitude(values: tf.Tensor) -> tf.Tensor:
    """The bits of |x| as whole numbers, in the order of |x|: kernels may take subnormals for 0."""
    size = values.dtype.size
    bits = tf.bitcast(values, _INTEGERS[size])
    bits = tf.cast(bits, tf.int32) if size == 2 else bits
    return bits & (2 ** (8 * size - 1) - 1)


def infinity(dtype: tf.DType) -> int:
    """The magnitude of infinity; all finite ones are below, those of NaNs above."""
    held = formats.named(dtype.name)
    return int((2**held.exponent_bits - 1) << held.mantissa_bits)


def smallest_normal(dtype: tf.DType) -> int:
    """The magnitude of the smallest normal number."""
    return int(1 << formats.named(dtype.name).mantissa_bits)


def is_of(held: formats.Format, values: tf.Tensor) -> tf.Tensor:
    """Whether float32 values are numbers of a narrower format.

    Not by casting there and back: XLA may leave both out.
    """
    spare = formats.named("float32").mantissa_bits - held.mantissa_bits
    has_few_bits = tf.equal(tf.bitcast(values, tf.int32) & (2**spare - 1), 0)
    size = tf.abs(values)
    # Below the smallest normal number neighbours are as far apart as just above it.
    if held.min_exponent > formats.named("float32").min_exponent:
        steps = size / held.smallest_subnormal
        has_few_bits = tf.where(
            size < held.smallest_normal, tf.equal(steps, tf.floor(steps)), has_few_bits
        )
    return has_few_bits & (size <= held.largest)


def exponent_counts(values: tf.Tensor) -> tf.Tensor:
    """How many values have which biased exponent of float64; int64 [2048], the first is zeros'."""
    exponents = tf.cast(exponent_bits(tf.cast(values, tf.float64)), tf.int32)
    return tf.raw_ops.DenseBincount(
        input=tf.reshape(exponents, [-1]),
        size=tf.constant(NUM_EXPONENTS),
        weights=tf.zeros([0], tf.int64),
        binary_output=False,
    )


def exponent_bits(values: tf.Tensor) -> tf.Tensor:
    """The biased exponents of float64 values, int64; 0 for zeros."""
    return tf.bitwise.right_shift(tf.bitcast(values, tf.int64), tf.constant(52, tf.int64)) & 2047


def power_of_two(exponent: tf.Tensor) -> tf.Tensor:
    """2^exponent, exact; float64, from int64."""
    biased = tf.clip_by_value(exponent + BIAS, 1, 2 * BIAS)
    return tf.bitcast(tf.bitwise.left_shift(biased, tf.constant(52, tf.int64)), tf.float64)
