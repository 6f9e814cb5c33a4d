"""The bookkeeping of loss scaling for what needs no scale."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras

from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.precision.policy import float16_layers


@keras.saving.register_keras_serializable(package="tfamp")
class UnscaledOptimizer(LossScaleOptimizer):
    """The same bookkeeping without a loss scale: nothing is scaled, nothing is skipped.

    What float32 and bfloat16 train with, and float16 under `--loss_scale=none`, so that every
    policy has the same accumulation, gradient norm and history. A non-finite gradient is
    applied, as a bare optimizer would.

    Args:
        inner_optimizer: The `keras.optimizers.Optimizer` that updates the weights.
        name: Name of the optimizer.
        history: int, steps that `history()` holds.
        counts_zeros: bool, whether `history()` has the shares of gradient entries that are zero
            and non-finite, as for `LossScaleOptimizer`.
    """

    _scales = False

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        name: str | None = None,
        *,
        history: int = 1024,
        counts_zeros: bool = False,
    ) -> None:
        super().__init__(
            inner_optimizer,
            1.0,
            name=name,
            dynamic=False,
            history=history,
            counts_zeros=counts_zeros,
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        config = super().get_config()
        kept = ("inner_optimizer", "name", "history", "counts_zeros")
        return {name: value for name, value in config.items() if name in kept}


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
    if isinstance(optimizer, LossScaleOptimizer):
        return optimizer.is_scaling
    is_wrapped = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return is_wrapped or getattr(optimizer, "loss_scale_factor", None) is not None
