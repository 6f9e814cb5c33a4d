"""A function of structures of tensors, traced once and called with others of the same shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfamp.precision.layer_internals import draws_anew


class Trace(NamedTuple):
    """A traced function.

    Attributes:
        call: Takes the arguments' structure, returns what the function does.
        draws_anew: The stateful random operations in it, which draw other numbers at each call.
    """

    call: Callable[[Any], Any]
    draws_anew: list[str]

    def __call__(self, arguments: Any) -> Any:
        """Calls it."""
        return self.call(arguments)


def shapes(arguments: Any) -> str:
    """What tells the shapes and dtypes of one structure of tensors from those of another."""
    return str(
        keras.tree.map_structure(lambda x: None if x is None else (x.shape, x.dtype), arguments)
    )


def trace(function: Callable[..., Any], like: Any, jit_compile: bool) -> Trace:
    """Traces a function whose result may hold other things than tensors.

    `tf.function` would make tensors of names and numbers, and runs eagerly while
    `tf.config.run_functions_eagerly` is on; a concrete function does neither.

    Args:
        function: What to trace.
        like: A tuple of structures of tensors and None: its arguments.
        jit_compile: Whether XLA compiles it.
    """
    structures: list[Any] = []

    def flat(*tensors: tf.Tensor) -> list[tf.Tensor]:
        remaining = iter(tensors)
        found = function(
            *keras.tree.map_structure(lambda x: None if x is None else next(remaining), like)
        )
        structures.append(
            keras.tree.map_structure(lambda x: _HERE if tf.is_tensor(x) else x, found)
        )
        return [value for value in keras.tree.flatten(found) if tf.is_tensor(value)]

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in _tensors(like)]
    traced = tf.function(flat, autograph=False, jit_compile=jit_compile)
    concrete = traced.get_concrete_function(*specs)

    def call(arguments: Any) -> Any:
        values = iter(concrete(*_tensors(arguments)))
        return keras.tree.map_structure(
            lambda value: next(values) if value is _HERE else value, structures[-1]
        )

    drawing = {op.type for op in concrete.graph.get_operations() if draws_anew(op)}
    return Trace(call, sorted(drawing))


_HERE = object()


def _tensors(structure: Any) -> list[tf.Tensor]:
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
