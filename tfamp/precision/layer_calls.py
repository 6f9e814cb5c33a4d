"""Every call of a model's layers, seen from outside while a step is traced or run."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras
import tensorflow as tf

OnReturn = Callable[[keras.layers.Layer, Any], Any]
# Takes the positional and the named arguments together, as a pair, and returns such a pair.
OnCall = Callable[[keras.layers.Layer, Any], Any]
Around = Callable[[keras.layers.Layer, Callable[[], Any]], Any]

_lock = threading.Lock()
_open = 0
# Replicas are traced in a thread each, and each sees its own calls only.
_here = threading.local()


@contextlib.contextmanager
def seen_calls(
    layers: Collection[keras.layers.Layer], on_return: OnReturn, on_call: OnCall | None = None
) -> Iterator[None]:
    """Calls a function with each call of some layers that returns in this thread.

    Calls on symbolic tensors, which build a model, are passed over. `Layer.__call__` is replaced
    for all layers while any such context is open: a layer's own `call` may be one that Keras has
    wrapped or a `tf.function`, and an attribute of the layer would be tracked as its state.

    Args:
        layers: The layers.
        on_return: Takes the layer and what it returned; what it returns is handed on instead.
        on_call: Likewise, before the call, the layer and a pair of what it is called with.
    """
    with wrapped_calls(layers, lambda layer, call: on_return(layer, call()), on_call):
        yield


@contextlib.contextmanager
def wrapped_calls(
    layers: Collection[keras.layers.Layer], around: Around, on_call: OnCall | None = None
) -> Iterator[None]:
    """As `seen_calls`, with a function that makes the call itself.

    Args:
        layers: The layers.
        around: Takes the layer and a function of nothing that calls it; what it returns is handed
            on.
        on_call: As for `seen_calls`.
    """
    chosen = {id(layer) for layer in layers}

    def wrap(layer: keras.layers.Layer, call: Callable[[], Any]) -> Callable[[], Any]:
        return functools.partial(around, layer, call) if id(layer) in chosen else call

    def before(layer: keras.layers.Layer, arguments: Any) -> Any:
        return on_call(layer, arguments) if on_call and id(layer) in chosen else arguments

    _install()
    stack = _here.__dict__.setdefault("stack", [])
    entry = (wrap, before)
    stack.append(entry)
    try:
        yield
    finally:
        stack.remove(entry)
        _uninstall()


def is_in_trace(tensor: Any, graph: tf.Graph | None) -> bool:
    """Whether a tensor can be used where a step is traced, and not inside a loop of it alone.

    Args:
        tensor: What a layer returned.
        graph: The step's graph; None where it runs eagerly.
    """
    return graph is None or getattr(tensor, "graph", None) is graph


def _install() -> None:
    global _open
    with _lock:
        _open += 1
        if _open == 1:
            keras.layers.Layer.__call__ = _seeing(keras.layers.Layer.__call__)


def _uninstall() -> None:
    global _open
    with _lock:
        _open -= 1
        if _open == 0:
            keras.layers.Layer.__call__ = keras.layers.Layer.__call__.__wrapped__


def _seeing(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def seeing(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        stack = getattr(_here, "stack", ())
        if not stack or any(map(keras.backend.is_keras_tensor, keras.tree.flatten((args, kwargs)))):
            return call(layer, *args, **kwargs)
        for _, before in stack:
            args, kwargs = before(layer, (args, kwargs))
        made: Callable[[], Any] = functools.partial(call, layer, *args, **kwargs)
        for wrap, _ in reversed(stack):
            made = wrap(layer, made)
        return made()

    return seeing
