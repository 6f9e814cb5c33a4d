"""float16 that trains without a loss scale, and says nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import keras

from tfamp.precision.policy import float16_layers
from tfamp.precision.recorded_optimizer import RecordedOptimizer


def warn_if_unscaled(
    model: keras.Model, optimizers: Iterable[keras.optimizers.Optimizer] | None = None
) -> None:
    """Warns, by name, of layers that compute in float16 while nothing scales the loss.

    Args:
        model: The model.
        optimizers: What trains it; the model's own optimizer if None.
    """
    optimizers = [model.optimizer] if optimizers is None else optimizers
    layers = [] if all(map(_is_scaled, optimizers)) else float16_layers(model)
    if layers:
        named = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if layers[5:] else "")
        warnings.warn(
            f"These layers compute in float16 and nothing scales the loss: {named}. Small "
            "gradients will vanish. Wrap the optimizer in tfamp.LossScaleOptimizer.",
            stacklevel=2,
        )


def _is_scaled(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer of any kind takes its gradients of a scaled loss."""
    if isinstance(optimizer, RecordedOptimizer):
        return optimizer.is_scaling
    is_wrapped = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return is_wrapped or getattr(optimizer, "loss_scale_factor", None) is not None
