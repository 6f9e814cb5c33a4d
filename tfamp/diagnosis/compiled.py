"""Functions that XLA compiles, wherever they are called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Has XLA compile a function of tensors: one loop over memory instead of one per operation.

    Traces are kept here, by shape: a `tf.function` that is called with a dozen shapes in a row, as
    layers have them, warns the user of its retracing.

    Args:
        function: Takes tensors by place, and by keyword what is fixed at compilation.
    """
    traced = tf.function(function, autograph=False, jit_compile=True)

    @functools.cache
    def concrete(specs: tuple[tf.TensorSpec, ...], fixed: tuple[tuple[str, Any], ...]) -> Any:
        return traced.get_concrete_function(*specs, **dict(fixed))

    @functools.wraps(function)
    def call(*tensors: Any, **fixed: Any) -> Any:
        values = [tf.convert_to_tensor(tensor) for tensor in tensors]
        specs = tuple(tf.TensorSpec(value.shape, value.dtype) for value in values)
        return concrete(specs, tuple(fixed.items()))(*values)

    return call
