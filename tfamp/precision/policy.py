"""Precision policies: setting one for a while, and which layers compute in what."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

import keras
import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.run.errors import InputError, setting


@contextlib.contextmanager
def global_policy(name: str) -> Iterator[None]:
    """Makes `name` the global Keras policy and puts the old one back at the end."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Allows or forbids TF32 in float32 matrix products; puts the old setting back at the end."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(enabled)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def computes_in_tf32() -> bool:
    """Whether float32 matrix products really run in TF32 here.

    TensorFlow's switch is on by default everywhere; it matters on NVIDIA GPUs of compute
    capability 8.0 (Ampere) and later.
    """
    if not tf.config.experimental.tensor_float_32_execution_enabled():
        return False
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", (0, 0)) >= (8, 0):
            return True
    return False


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Every layer inside a model, nested ones too, without the model itself."""
    return keras_internals.layers_within(model)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that a layer holds itself, without those of the layers inside it."""
    inner = keras_internals.layers_within(layer)
    known = {id(variable) for part in inner for variable in part.variables}
    return [variable for variable in layer.variables if id(variable) not in known]


def path_of(layer: keras.layers.Layer) -> str:
    """A layer's path; its name where Keras gives it no path, as for one without weights."""
    return layer.path or layer.name


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


def float16_layers(model: keras.Model) -> list[str]:
    """Paths of the layers that compute in float16, whatever the policy is called.

    A DTypePolicyMap, one float16 layer in a float32 model and pure float16 all count. A layer
    without weights that only passes values on counts as well where it computes in float16.
    """
    return [
        path_of(layer)
        for layer in all_layers(model)
        if layer.compute_dtype == "float16" and not isinstance(layer, keras.layers.InputLayer)
    ]


def force_float32(model: keras.Model, patterns: Sequence[str]) -> list[str]:
    """Makes the layers whose path holds a match compute in float32.

    A built layer takes the new compute dtype at once. Its variables keep their dtype: float32
    under a mixed policy, 16 bits under a pure one.

    Args:
        model: A built model.
        patterns: Regular expressions, searched for in the layers' paths.

    Returns:
        The paths of the layers that were forced.

    Raises:
        InputError: A pattern matches no layer.
    """
    layers = [x for x in all_layers(model) if not isinstance(x, keras.layers.InputLayer)]
    forced: dict[str, keras.layers.Layer] = {}
    for pattern in patterns:
        matched = [layer for layer in layers if re.search(pattern, path_of(layer))]
        if not matched:
            paths = [path_of(layer) for layer in layers]
            raise InputError(
                f"{setting('float32_layers')}: {pattern!r} matches no layer of {model.name!r}. "
                f"Near it: {', '.join(_near(pattern, paths))}."
            )
        forced.update({path_of(layer): layer for layer in matched})
    for layer in forced.values():
        policy = keras.DTypePolicy("float32")
        layer.dtype_policy = policy
    return list(forced)


def _near(pattern: str, paths: Sequence[str], limit: int = 5) -> list[str]:
    # Compared with the last part of each path too: a user types `conv1`, not the whole path.
    def likeness(path: str) -> float:
        parts = (path, path.rsplit("/", 1)[-1])
        return max(difflib.SequenceMatcher(None, pattern, part).ratio() for part in parts)

    return sorted(paths, key=likeness, reverse=True)[:limit]
