"""Layers by their paths."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from tfamp.precision.policy import path_of


def by_path(layers: Iterable[keras.layers.Layer]) -> dict[str, keras.layers.Layer]:
    """Layers by path, in order; equal paths are told apart by `#2`, `#3`.

    Two layers without weights have no path but their name, and two blocks of a subclassed model
    may have one.
    """
    named: dict[str, keras.layers.Layer] = {}
    times: dict[str, int] = {}
    for layer in layers:
        path = path_of(layer)
        times[path] = times.get(path, 0) + 1
        named[path if times[path] == 1 else f"{path}#{times[path]}"] = layer
    return named


def only_holds(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes nothing itself: an input, or a model that is a graph of layers."""
    if isinstance(layer, keras.layers.InputLayer):
        return True
    # By the `call` that it has: a functional model of a class of the user's may have its own.
    return type(layer).call.__qualname__ in ("Functional.call", "Sequential.call")
