"""The end of every network: logits that are float32 whatever the precision policy says."""

from __future__ import annotations

from typing import Any

import keras


def classifier(features: Any, num_classes: int, kernel_initializer: Any) -> Any:
    """Maps features to logits in float32.

    Under a 16 bit policy a loss taken from 16 bit logits loses the small probabilities, so the
    matrix multiply, its weights and its output are float32 (Keras guide "Mixed precision",
    section "Building the model"). The cost is one small layer.

    Args:
        features: `(batch, width)` Keras tensor of any float dtype.
        num_classes: The number of logits.
        kernel_initializer: How the weights start.

    Returns:
        `(batch, num_classes)` float32 Keras tensor, made by the layer `head`.
    """
    return keras.layers.Dense(
        num_classes, kernel_initializer=kernel_initializer, dtype="float32", name="head"
    )(features)
