"""The bookkeeping of loss scaling for what needs no scale."""

from __future__ import annotations

import warnings
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


def warn_if_unscaled(model: keras.Model) -> None:
    """Warns, by name, of layers that compute in float16 while nothing scales the loss."""
    optimizer = model.optimizer
    is_scaled = (
        optimizer.is_scaling
        if isinstance(optimizer, LossScaleOptimizer)
        else isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        or getattr(optimizer, "loss_scale_factor", None) is not None
    )
    layers = [] if is_scaled else float16_layers(model)
    if layers:
        named = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if layers[5:] else "")
        warnings.warn(
            f"These layers compute in float16 and nothing scales the loss: {named}. Small "
            "gradients will vanish. Wrap the optimizer in tfamp.LossScaleOptimizer.",
            stacklevel=2,
        )
