"""What a pass left of its gradients, beside the reference's: sums, made where the tensors are.

All here is graph code that `Probe.run` traces into its passes, so no activation comes to the host.
What a layer gives per call is one float64 vector; the host pools vectors by adding them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfamp.diagnosis import float_bits
from tfamp.diagnosis.compiled import compiled
from tfamp.diagnosis.probe import LayerCall, Pass
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


class Reference(NamedTuple):
    """One call's gradient in the reference, kept small.

    Attributes:
        blocks: Tensor [blocks, rows, lanes], times 2^-exponent, filled up with zeros; float64, or
            float32 of a large one. What is not zero in the reference is not zero here.
        exponent: floor(log2) of the largest entry; 0 where all are zero.
        squares: Sum of the squares of the entries, times 4^-exponent.
        exponents: int64 array, entries by `floor(log2 |x|) + 1023`; the first are the zeros.
        outputs: float64 array: entries, sum of squares, non-finite entries of what the call
            returned.
        non_finite: Non-finite entries of the gradient.
    """

    blocks: Any
    exponent: Any
    squares: Any
    exponents: Any
    outputs: Any
    non_finite: Any


def key_of(path: str, number: int, output: int) -> str:
    """The name of one output of one call of a layer, or of one of the model's variables."""
    return f"{number}:{output}:{path}"


def path_in(key: str) -> str:
    """The layer's path in such a name."""
    return key.split(":", 2)[2]


def weights_by_key(taken: Pass) -> dict[str, tf.Tensor]:
    """The weights' gradients that there are, by place and layer."""
    return {
        key_of(weight.path, place, 0): weight.gradient
        for place, weight in enumerate(taken.weights)
        if weight.gradient is not None
    }


def calls_by_key(calls: Sequence[LayerCall]) -> dict[str, tuple[tf.Tensor, tf.Tensor | None]]:
    """Each output of each call, with its gradient; calls of a layer are numbered as they return."""
    seen: dict[str, int] = {}
    found = {}
    for call in calls:
        number = seen.setdefault(call.path, 0)
        seen[call.path] += 1
        for place, (output, gradient) in enumerate(zip(call.outputs, call.gradients, strict=True)):
            found[key_of(call.path, number, place)] = (output, gradient)
    return found


def read_reference(taken: Pass, *_: Any) -> dict[str, Any]:
    """A `read` for the reference.

    Returns:
        `loss`: the loss. `weights`: each variable's gradient by key, left out where there is none;
        `weight_exponents`: their exponents likewise. `calls`: a `Reference` by key; where no
        gradient reaches an output, of its outputs only. `order`: these keys, as calls returned.
    """
    weights, calls = weights_by_key(taken), calls_by_key(taken.calls)
    return {
        "loss": taken.loss,
        "order": list(calls),
        "weights": weights,
        "weight_exponents": {key: float_bits.exponent_counts(g) for key, g in weights.items()},
        "calls": {key: _reference(output, gradient) for key, (output, gradient) in calls.items()},
    }


def _reference(output: tf.Tensor, gradient: tf.Tensor | None) -> dict[str, tf.Tensor]:
    found = {"outputs": _size(output)}
    if gradient is None:
        return found
    blocks, exponent, squares, non_finite = _normalised(
        _filled_up(gradient), is_wide=_is_wide(gradient)
    )
    return found | {
        "blocks": blocks,
        "exponent": exponent,
        "squares": squares,
        "non_finite": non_finite,
        "exponents": float_bits.exponent_counts(gradient),
        "entries": tf.size(gradient, tf.int64),
    }


def read_outputs(taken: Pass, *_: Any) -> dict[str, Any]:
    """A `read` that looks for what is not finite on the way forward.

    Returns:
        `loss`, and `outputs`: pairs of key and non-finite entries, in the order of the calls.
    """
    return {
        "loss": taken.loss,
        "outputs": [
            (key, tf.reduce_sum(tf.cast(~tf.math.is_finite(output), tf.int64)))
            for key, (output, _) in calls_by_key(taken.calls).items()
        ],
    }


def read_weights(taken: Pass, *_: Any) -> dict[str, Any]:
    """A `read` of the weights' gradients, by key."""
    return weights_by_key(taken)


def read_compared(
    taken: Pass, weights: Mapping[str, Any], calls: Mapping[str, Any], factors: Mapping[str, Any]
) -> dict[str, Any]:
    """A `read` that compares a pass with the reference.

    Args:
        taken: The pass.
        weights: The reference's gradients by key.
        calls: `Reference.blocks` by key.
        factors: `weights`: float64 scalar that unscales them. Else by key: two float32 numbers
            whose product unscales a gradient into the units of its blocks.

    Returns:
        `loss`, `weights`: vectors of WEIGHT_SUMS by key, and `calls`: vectors of SUMS by key, in
        which `reference_squares` is 0. What one side lacks is left out.
    """
    found, gradients = calls_by_key(taken.calls), weights_by_key(taken)
    compared = {}
    for key, blocks in calls.items():
        gradient = found[key][1] if key in found else None
        if gradient is None:
            continue
        filled = _filled_up(gradient)
        if filled.shape.is_compatible_with(blocks.shape):
            compared[key] = _call_sums(filled, blocks, gradient, factors[key])
    return {
        "loss": taken.loss,
        "weights": {
            key: _weight_sums(gradients[key], reference, factors["weights"])
            for key, reference in weights.items()
            if key in gradients
        },
        "calls": compared,
    }


def factors_for(log2_scale: float, exponent: int) -> np.ndarray:
    """Two float32 powers of two whose product is 2^-(log2_scale + exponent).

    One alone may be out of float32's range.
    """
    whole = -int(log2_scale) - exponent
    first = max(-126, min(126, whole))
    return np.array([2.0**first, 2.0 ** max(-126, min(126, whole - first))], np.float32)


def _call_sums(
    filled: tf.Tensor, blocks: tf.Tensor, gradient: tf.Tensor, factors: tf.Tensor
) -> tf.Tensor:
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


def _weight_sums(gradient: tf.Tensor, reference: tf.Tensor, unscale: tf.Tensor) -> tf.Tensor:
    sums = _compared_weights(_filled_up(gradient), _filled_up(reference), unscale)
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
def _normalised(
    filled: tf.Tensor, is_wide: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    wide = tf.cast(filled, tf.float64)
    is_finite = float_bits.magnitude(wide) < float_bits.infinity(wide.dtype)
    largest = tf.reduce_max(tf.where(is_finite, tf.abs(wide), 0.0))
    exponent = tf.where(largest > 0, float_bits.exponent_bits(largest) - float_bits.BIAS, 0)
    near = wide * float_bits.power_of_two(-exponent)
    kept = near
    if not is_wide:
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


def _size(output: tf.Tensor) -> tf.Tensor:
    """Entries, sum of squares, non-finite entries."""
    sums = _size_of_blocks(_filled_up(output))
    return tf.concat([[tf.cast(tf.size(output), tf.float64)], sums], axis=0)


def _filled_up(values: tf.Tensor) -> tf.Tensor:
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


def _is_wide(values: tf.Tensor) -> bool:
    size = values.shape.num_elements()
    return size is not None and size <= _LARGEST_WIDE


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.reduce_sum(values, axis=1), tf.float64))


def _count(flags: tf.Tensor) -> tf.Tensor:
    return _sum(tf.cast(flags, tf.float32))
