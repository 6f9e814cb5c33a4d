"""What a layer is to its model."""

from __future__ import annotations

import keras


def only_holds(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes nothing itself: an input, or a model that is a graph of layers."""
    if isinstance(layer, keras.layers.InputLayer):
        return True
    # By the `call` that it has: a functional model of a class of the user's may have its own.
    return type(layer).call.__qualname__ in ("Functional.call", "Sequential.call")
