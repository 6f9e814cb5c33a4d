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


def cast_to_float32(logits: Any) -> Any:
    """Casts the 16 bit logits of somebody else's network, in the layer `float32_logits`.

    Args:
        logits: `(batch, num_classes)` Keras tensor of any float dtype.

    Returns:
        The same values in float32. What the 16 bit layer before it rounded stays rounded.
    """
    return keras.layers.Activation("linear", dtype="float32", name="float32_logits")(logits)
