"""How far mixed_float16's gradient is from float64's, at the weights and on the batch of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments.loss_scaling.workloads import Batch
from tfamp.diagnosis.advice import advise
from tfamp.diagnosis.probe import Probe
from tfamp.training.step import Step

KEYS = ("relative_error", "non_finite_fraction", "underflow", "underflow_by_layer")


class Compared(NamedTuple):
    """Entries of a gradient, float64 [n]: unscaled, and in the reference."""

    values: np.ndarray
    reference: np.ndarray

    @property
    def relative_error(self) -> float | None:
        """L2 norm of the difference over the reference's; None where an entry is not finite."""
        size = np.linalg.norm(self.reference)
        error = np.linalg.norm(self.values - self.reference)
        return float(error / size) if size > 0 and np.isfinite(error) else None

    @property
    def underflow_fraction(self) -> float:
        """Share of the entries that are zero, and not in the reference."""
        return float(np.mean((self.values == 0) & (self.reference != 0)))

    @property
    def non_finite_fraction(self) -> float:
        """Share of the entries that are NaN or infinite."""
        return float(np.mean(~np.isfinite(self.values)))


def compared(pairs: Iterable[tuple[Any, Any]], scale: float) -> Compared:
    """Gradients of the same, scaled and in the reference, end to end."""
    values, references = zip(*pairs, strict=True)

    def flat(arrays: Iterable[Any]) -> np.ndarray:
        return np.concatenate([np.asarray(array, "float64").ravel() for array in arrays])

    return Compared(flat(values) / scale, flat(references))


def measure(model: keras.Model, batch: Batch, scale: float) -> dict[str, Any]:
    """What mixed_float16 makes of the gradient, operation by operation.

    As without XLA, and as `tfamp.gradient_fidelity` measures it. A step that XLA compiles loses
    less: XLA keeps float32 between operations that it fuses.

    Args:
        model: The compiled model; it stays what it is.
        batch: On which batch.
        scale: The loss scale.

    Returns:
        Of the weights' gradients: `relative_error` and `non_finite_fraction`. Of the gradients
        with respect to the outputs of the layers that compute in float16: the share that became
        zero of all entries, `underflow`, and by layer, `underflow_by_layer`. All None where a
        weight is not finite: there is no reference then.
    """
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        return dict.fromkeys(KEYS)
    with Probe(model) as probe:
        half = probe.mixed("float16")
        reference = probe.run(batch, probe.everywhere("float64"), eager=True)
        scaled = probe.run(batch, half, scale=scale, eager=True)
    weights = compared(
        (
            (one.gradient, other.gradient)
            for one, other in zip(scaled.weights, reference.weights, strict=True)
            if one.gradient is not None
        ),
        scale,
    )
    activations = {
        one.path: compared(zip(one.gradients, other.gradients, strict=True), scale)
        for one, other in zip(scaled.calls, reference.calls, strict=True)
        if half.computes_in.get(one.path) == "float16"
        and all(gradient is not None for gradient in one.gradients)
    }
    underflows = {path: each.underflow_fraction for path, each in activations.items()}
    sizes = [len(each.values) for each in activations.values()]
    found = (
        weights.relative_error,
        weights.non_finite_fraction,
        float(np.average(list(underflows.values()), weights=sizes)),
        underflows,
    )
    return dict(zip(KEYS, found, strict=True))


def errors_of_compiled_step(
    model: keras.Model, batch: Batch, log2_scales: Iterable[int]
) -> list[dict[str, Any]]:
    """The error of the gradient that a step computes which XLA compiles.

    Args:
        model: The compiled model; it stays what it is.
        batch: On which batch.
        log2_scales: log2 of the loss scales.

    Returns:
        `log2_scale` and `relative_error` of the weights' gradients at each scale.
    """
    step = Step(model)

    def gradients(batch: Batch, scale: tf.Tensor) -> list[tf.Tensor]:
        return step.gradients(batch, lambda loss: loss * scale).gradients

    compiled = tf.function(gradients, jit_compile=True, autograph=False)
    with Probe(model) as probe:
        reference = probe.run(batch, probe.everywhere("float64"), eager=True)
    exact = [weight.gradient for weight in reference.weights]
    found = []
    for log2_scale in log2_scales:
        scale = 2.0**log2_scale
        scaled = compiled(batch, tf.constant(scale, tf.float32))
        error = compared(zip(scaled, exact, strict=True), scale).relative_error
        found.append({"log2_scale": log2_scale, "relative_error": error})
    return found


def advised_scale(model: keras.Model, batch: Batch) -> float:
    """Where the advisor has a dynamic scale begin, by its first batch.

    Raises:
        ValueError: No scale serves all layers.
    """
    with Probe(model) as probe:
        advice = advise(model, probe, batch).advice
    if advice.initial_scale is None:
        raise ValueError(f"{model.name}: {advice.summary}")
    return advice.initial_scale
