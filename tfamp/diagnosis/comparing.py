"""What a pass left of its gradients, beside the reference's: sums, made where the tensors are.

All here is graph code that `Probe.run` traces into its passes, so no activation comes to the host.
What a layer gives per call is one float64 vector; the host pools vectors by adding them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfamp.diagnosis import float_bits, sums
from tfamp.diagnosis.probe import LayerCall, Pass


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
    found = {"outputs": sums.size_of(output)}
    if gradient is None:
        return found
    blocks, exponent, squares, non_finite = sums.normalised(
        sums.filled_up(gradient), keeps_float64=sums.is_wide(gradient)
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


def read_distance(taken: Pass, weights: Mapping[str, Any], unscale: tf.Tensor) -> tf.Tensor:
    """A `read` of how far all weights' gradients together are off.

    Args:
        taken: The pass.
        weights: The reference's gradients by key.
        unscale: float64 scalar that unscales a gradient.

    Returns:
        float64 scalar, the squared L2 norm of the difference.
    """
    found = weights_by_key(taken)
    return tf.add_n(
        [
            sums.squared_distance(found.get(key, tf.zeros_like(reference)), reference, unscale)
            for key, reference in weights.items()
        ]
    )


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
        `loss`; `weights`: vectors of `sums.WEIGHT_SUMS` by key; `gradients`: what they are of, as
        it came; `calls`: vectors of `sums.SUMS` by key, in which `reference_squares` is 0. What one
        side lacks is left out.
    """
    found, gradients = calls_by_key(taken.calls), weights_by_key(taken)
    compared = {}
    for key, blocks in calls.items():
        gradient = found[key][1] if key in found else None
        if gradient is None:
            continue
        filled = sums.filled_up(gradient)
        if filled.shape.is_compatible_with(blocks.shape):
            compared[key] = sums.call_sums(filled, blocks, gradient, factors[key])
    return {
        "loss": taken.loss,
        "weights": {
            key: sums.weight_sums(gradients[key], reference, factors["weights"])
            for key, reference in weights.items()
            if key in gradients
        },
        "gradients": gradients,
        "calls": compared,
    }


def factors_for(log2_scale: float, exponent: int) -> np.ndarray:
    """Two float32 powers of two whose product is 2^-(log2_scale + exponent).

    One alone may be out of float32's range.
    """
    whole = -int(log2_scale) - exponent
    first = max(-126, min(126, whole))
    return np.array([2.0**first, 2.0 ** max(-126, min(126, whole - first))], np.float32)
