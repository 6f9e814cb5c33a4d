"""Sums over a gradient's entries beside the reference's, each tensor read once or twice by XLA."""

from __future__ import annotations

import tensorflow as tf

from tfamp.diagnosis import float_bits
from tfamp.diagnosis.compiled import compiled
from tfamp.precision import formats

# The entries of a vector of sums over the entries of a tensor; the first five are of unscaled
# values, `y` here and `r` in the reference. `subnormal` is by what holds the tensor.
SUMS = (
    "squared_error", "product", "squares", "reference_squares", "entries", "underflows",
    "non_finite", "subnormal",
)  # fmt: skip
# Of a weight's gradient there are three more: what holds it is decided once all is known.
FORMATS = ("float16", "bfloat16")
WEIGHT_SUMS = (
    *SUMS, *(f"subnormal_{name}" for name in FORMATS), *(f"unlike_{name}" for name in FORMATS)
)  # fmt: skip

# XLA reduces over the middle axis: lanes side by side, and few enough summands for float32.
_ROWS, _LANES = 16, 1024
_BLOCK = _ROWS * _LANES
# Small tensors share few sizes, each of which XLA compiles once.
_SMALL_SIZES = (1024, _BLOCK)
# A larger reference is kept in float32: rounding errors of so many entries even out.
_LARGEST_WIDE = 2**16
# Beyond, relative to the reference's largest entry, a value counts as this: squares of it are
# finite in float32. What is meant is a gradient that the reference says is zero.
_FARTHEST = 2.0**54
_SMALLEST_FLOAT32 = 2.0**-126


def squared_distance(gradient: tf.Tensor, reference: tf.Tensor, unscale: tf.Tensor) -> tf.Tensor:
    """Sum of the squares of what a weight's gradient is off, in float64; see `weight_sums`."""
    return _distance_of_blocks(filled_up(gradient), filled_up(reference), unscale)


@compiled
def _distance_of_blocks(values: tf.Tensor, reference: tf.Tensor, unscale: tf.Tensor) -> tf.Tensor:
    error = tf.cast(values, tf.float64) * unscale - tf.cast(reference, tf.float64)
    return _sum(error * error)


def squares(gradient: tf.Tensor) -> float:
    """Sum of the squares of a float64 gradient."""
    return 2 * float(tf.nn.l2_loss(gradient))


def call_sums(
    filled: tf.Tensor, blocks: tf.Tensor, gradient: tf.Tensor, factors: tf.Tensor
) -> tf.Tensor:
    """The sums of an activation gradient; `reference_squares` is left 0.

    Args:
        filled: The gradient, as `filled_up` makes blocks of it.
        blocks: The reference's.
        gradient: The gradient itself.
        factors: Two numbers whose product brings its entries into the reference's units.

    Returns:
        float64 vector of SUMS.
    """
    # One compilation for all dtypes; subnormal float16 numbers are normal ones of float32.
    values = filled if gradient.dtype == tf.float64 else tf.cast(filled, tf.float32)
    smallest_normal = formats.named(gradient.dtype.name).smallest_normal
    sums = _compared_blocks(
        values, blocks, factors, float_bits.magnitude(tf.constant(smallest_normal, values.dtype))
    )
    return tf.concat([sums[:4], [tf.cast(tf.size(gradient), tf.float64)], sums[4:]], axis=0)


@compiled
def _compared_blocks(
    values: tf.Tensor, blocks: tf.Tensor, factors: tf.Tensor, smallest_normal: tf.Tensor
) -> tf.Tensor:
    magnitude = float_bits.magnitude(values)
    first, second = tf.unstack(tf.cast(factors, blocks.dtype))
    unscaled = tf.cast(values, blocks.dtype) * first * second
    unscaled = tf.clip_by_value(unscaled, -_FARTHEST, _FARTHEST)
    error = unscaled - blocks
    is_zero, is_finite = tf.equal(magnitude, 0), magnitude < float_bits.infinity(values.dtype)
    is_small = magnitude < smallest_normal
    return tf.stack(
        [
            _sum(error * error),
            _sum(unscaled * blocks),
            _sum(unscaled * unscaled),
            tf.zeros([], tf.float64),
            _count(is_zero & tf.not_equal(blocks, 0.0)),
            _count(~is_finite),
            _count(is_small & ~is_zero),
        ]
    )


def weight_sums(gradient: tf.Tensor, reference: tf.Tensor, unscale: tf.Tensor) -> tf.Tensor:
    """The sums of a weight's gradient, in float64.

    Args:
        gradient: The gradient.
        reference: The reference's.
        unscale: float64 scalar that unscales the gradient.

    Returns:
        float64 vector of WEIGHT_SUMS.
    """
    sums = _compared_weights(filled_up(gradient), filled_up(reference), unscale)
    return tf.concat([sums[:4], [tf.cast(tf.size(gradient), tf.float64)], sums[4:]], axis=0)


@compiled
def _compared_weights(values: tf.Tensor, reference: tf.Tensor, unscale: tf.Tensor) -> tf.Tensor:
    magnitude = float_bits.magnitude(values)
    is_zero, is_finite = tf.equal(magnitude, 0), magnitude < float_bits.infinity(values.dtype)
    wide = tf.cast(reference, tf.float64)
    unscaled = tf.cast(values, tf.float64) * unscale
    error = unscaled - wide
    sums = [
        _sum(error * error),
        _sum(unscaled * wide),
        _sum(unscaled * unscaled),
        _sum(wide * wide),
        _count(is_zero & tf.not_equal(wide, 0.0)),
        _count(~is_finite),
        _count((magnitude < float_bits.smallest_normal(values.dtype)) & ~is_zero),
    ]
    narrow = tf.cast(values, tf.float32)
    size = tf.abs(narrow)
    for name in FORMATS:
        held = formats.named(name)
        is_small = size < held.smallest_normal
        sums.append(_count(is_small & ~is_zero & is_finite))
        sums.append(_count(~float_bits.is_of(held, narrow) & is_finite))
    order = [*range(7), 7, 9, 8, 10]
    return tf.stack([sums[place] for place in order])


@compiled
def normalised(filled: tf.Tensor, keeps_float64: bool) -> tuple[tf.Tensor, ...]:
    """A reference's blocks in units of its largest entry.

    Args:
        filled: Blocks of its gradient.
        keeps_float64: Whether they are kept in float64, else in float32.

    Returns:
        `blocks`, `exponent`, `squares` and `non_finite` of a `Reference`.
    """
    wide = tf.cast(filled, tf.float64)
    is_finite = float_bits.magnitude(wide) < float_bits.infinity(wide.dtype)
    largest = tf.reduce_max(tf.where(is_finite, tf.abs(wide), 0.0))
    exponent = tf.where(largest > 0, float_bits.exponent_bits(largest) - float_bits.BIAS, 0)
    near = wide * float_bits.power_of_two(-exponent)
    kept = near
    if not keeps_float64:
        kept = tf.cast(near, tf.float32)
        # What is not zero in the reference stays so.
        is_lost = tf.not_equal(wide, 0.0) & (tf.abs(kept) < _SMALLEST_FLOAT32)
        kept = tf.where(is_lost, tf.cast(tf.sign(wide), tf.float32) * _SMALLEST_FLOAT32, kept)
    return kept, exponent, _sum(near * near), _count(~is_finite)


@compiled
def _size_of_blocks(filled: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(filled, tf.float64)
    is_finite = float_bits.magnitude(filled) < float_bits.infinity(filled.dtype)
    return tf.stack([_sum(wide * wide), _count(~is_finite)])


def size_of(output: tf.Tensor) -> tf.Tensor:
    """Entries, sum of squares, non-finite entries."""
    sums = _size_of_blocks(filled_up(output))
    return tf.concat([[tf.cast(tf.size(output), tf.float64)], sums], axis=0)


def filled_up(values: tf.Tensor) -> tf.Tensor:
    """The values as blocks, [blocks, rows, lanes], filled up with zeros to a size of few."""
    flat = tf.reshape(values, [-1])
    size = flat.shape[0]
    if size is None:
        flat = tf.pad(flat, [[0, -tf.size(flat) % _BLOCK]])
        return tf.reshape(flat, [-1, _ROWS, _LANES])
    goal = next((small for small in _SMALL_SIZES if size <= small), size + -size % _BLOCK)
    if goal > size:
        flat = tf.pad(flat, [[0, goal - size]])
    return tf.reshape(flat, [-1, _ROWS, min(_LANES, goal // _ROWS)])


def is_wide(values: tf.Tensor) -> bool:
    """Whether a reference is small enough to be kept in float64."""
    size = values.shape.num_elements()
    return size is not None and size <= _LARGEST_WIDE


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.reduce_sum(values, axis=1), tf.float64))


def _count(flags: tf.Tensor) -> tf.Tensor:
    return _sum(tf.cast(flags, tf.float32))
