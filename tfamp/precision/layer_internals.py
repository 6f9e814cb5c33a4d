"""Private names of layers, losses and random draws, which only diagnosis and meters need.

As in `keras_internals`: each function says where the name stands and in which version it was read,
and tests/precision/test_layer_internals.py what breaks here when it changes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfamp.precision.keras_internals import private


def policy_slot(layer: keras.layers.Layer) -> Any:
    """The policy, or the map of policies, that a layer holds.

    `Layer.dtype_policy` is the same to read, but to set it writes into a `DTypePolicyMap`, which
    the model's other layers share. `Layer._dtype_policy`: keras 3.12 to 3.15, src/layers/layer.py.
    """
    return private(layer, "_dtype_policy", "its precision cannot be changed and put back.")


def set_policy_slot(layer: keras.layers.Layer, policy: Any) -> None:
    """Gives a layer a policy, and leaves a map that it shares as it is; see `policy_slot`."""
    policy_slot(layer)
    # Keras tracks what is set on a layer; a policy is no state, and its setter does not either.
    object.__setattr__(layer, "_dtype_policy", policy)


def with_mask_of(tensor: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Gives a tensor that stands for another the mask that Keras hands on with that.

    `Tensor._keras_mask`: keras 3.12 to 3.15, src/backend/common/masking.py. Without it none.
    """
    mask = getattr(tensor, "_keras_mask", None)
    if mask is not None:
        other._keras_mask = mask
    return other


def set_symbolic_dtype(tensor: keras.KerasTensor, dtype: str) -> None:
    """Sets the dtype to which a functional model converts what comes in at this input.

    `KerasTensor._dtype`: keras 3.12 to 3.15, src/backend/common/keras_tensor.py.
    """
    private(tensor, "_dtype", "a model's inputs would be rounded on their way in.")
    object.__setattr__(tensor, "_dtype", dtype)


def seed_generators_within(layer: keras.layers.Layer) -> list[keras.random.SeedGenerator]:
    """What a layer holds itself to draw its random numbers from.

    `Layer._seed_generators`: keras 3.12 to 3.15, src/layers/layer.py. Without it none are known.
    """
    return list(getattr(layer, "_seed_generators", ()))


def compiled_like(loss: Any, weights: Any, model: keras.Model) -> Callable[..., Any]:
    """Losses as `compile` takes them, as one function of targets, outputs and sample weights.

    `CompileLoss`: keras 3.12 to 3.15, src/trainers/compile_utils.py.

    Args:
        loss: What `compile(loss=)` takes.
        weights: What `compile(loss_weights=)` takes.
        model: A model, for the names of its outputs.
    """
    module = importlib.import_module("keras.src.trainers.compile_utils")
    consequence = "losses cannot be computed outside of fit()."
    compile_loss = private(module, "CompileLoss", consequence)
    return compile_loss(loss, weights, output_names=getattr(model, "output_names", None))


def fresh_compiled_loss(model: keras.Model) -> Callable[..., Any] | None:
    """A copy of a model's compiled losses, not built, so that the model's own stay untouched.

    `Trainer._compile_loss`, `CompileLoss._user_loss`, `_user_loss_weights`: keras 3.12 to 3.15,
    src/trainers/trainer.py and compile_utils.py. None where the model has none.
    """
    own = getattr(model, "_compile_loss", None)
    if own is None:
        return None
    consequence = "its compiled loss cannot be computed outside of fit()."
    loss = private(own, "_user_loss", consequence)
    return compiled_like(loss, private(own, "_user_loss_weights", consequence), model)


@contextlib.contextmanager
def loss_dtype(dtype: str) -> Iterator[None]:
    """Has every `keras.losses.Loss` compute in a dtype while it is open.

    A loss's dtype is fixed when it is made, and `Loss.dtype` is what its `__call__` reads: keras
    3.12 to 3.15, src/losses/loss.py.
    """
    own = keras.losses.Loss.dtype
    keras.losses.Loss.dtype = property(lambda loss: dtype)
    try:
        yield
    finally:
        keras.losses.Loss.dtype = own


def draws_anew(operation: tf.Operation) -> bool:
    """Whether an operation draws other numbers each time it runs, from a state in its kernel.

    By the names of stateful operations: tensorflow 2.21, core/ops/random_ops.cc.
    """
    names = ("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial")
    return operation.op_def.is_stateful and operation.type.startswith(names)


Draw = Callable[[Callable[[str], tf.Tensor], str, bool], tf.Tensor]
_DRAWS = ("normal", "uniform", "truncated_normal", "gamma", "binomial", "beta")


@contextlib.contextmanager
def replaced_draws(draw: Draw) -> Iterator[None]:
    """Replaces how random floats are drawn while it is open: Keras's, and any dropout's.

    `keras.src.backend.tensorflow.random`: keras 3.12 to 3.15; `keras.random` and the layers look
    its functions up at each call. `tensorflow.python.ops.nn_ops._dropout`: tensorflow 2.21, with
    `uniform_sampler(shape, dtype)`, which it compares with the rate; every dropout of TensorFlow's
    and Keras's ends there.

    Args:
        draw: Called with a function of a dtype, which draws, the dtype that was asked for, and
            whether what is returned must be of it.
    """
    keras_random: Any = importlib.import_module("keras.src.backend.tensorflow.random")
    nn_ops: Any = importlib.import_module("tensorflow.python.ops.nn_ops")
    consequence = "two precisions would draw other dropout masks."
    own = {name: private(keras_random, name, consequence) for name in _DRAWS}
    own_dropout = private(nn_ops, "_dropout", consequence)

    def drawing(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def drawn(*args: Any, **kwargs: Any) -> Any:
            asked = inspect.signature(function).bind(*args, **kwargs).arguments
            dtype = keras.backend.standardize_dtype(
                asked.pop("dtype", None) or keras.backend.floatx()
            )
            return draw(lambda dtype: function(**asked, dtype=dtype), dtype, True)

        return drawn

    @functools.wraps(own_dropout)
    def dropout(
        x: Any, rate: Any, noise_shape: Any, uniform_sampler: Any, *args: Any, **more: Any
    ) -> tf.Tensor:
        def sampler(shape: Any, dtype: Any) -> tf.Tensor:
            # A rate that is a number becomes one of the draw's dtype; a tensor has its own.
            return draw(
                lambda dtype: uniform_sampler(shape=shape, dtype=tf.as_dtype(dtype)),
                keras.backend.standardize_dtype(dtype),
                tf.is_tensor(rate),
            )

        return own_dropout(x, rate, noise_shape, sampler, *args, **more)

    for name, function in own.items():
        setattr(keras_random, name, drawing(function))
    nn_ops._dropout = dropout
    try:
        yield
    finally:
        nn_ops._dropout = own_dropout
        for name, function in own.items():
            setattr(keras_random, name, function)


@contextlib.contextmanager
def gradients_in_float64() -> Iterator[None]:
    """Has every tape go back in float64, from what the way forward has computed in any dtype.

    Each operation's gradient function gets the operation's inputs and outputs, and the gradient
    that comes in, cast to float64. A `tf.custom_gradient` keeps the dtype that it was written for:
    what goes in is cast to it, what comes out to float64. Where a kernel has no float64, that
    operation's gradient is computed in its own dtype.

    `TFE_Py_RegisterGradientFunction`, `backprop._gradient_function`, `record.record_operation`:
    tensorflow 2.21, python/eager/backprop.py and record.py.
    """
    backprop: Any = importlib.import_module("tensorflow.python.eager.backprop")
    record: Any = importlib.import_module("tensorflow.python.eager.record")
    wrapped: Any = importlib.import_module("tensorflow.python.pywrap_tfe")
    consequence = "the error of the way forward cannot be told from that of the way back."
    gradient_function = private(backprop, "_gradient_function", consequence)
    register = private(wrapped, "TFE_Py_RegisterGradientFunction", consequence)
    record_operation = private(record, "record_operation", consequence)

    def widened(
        name: str,
        attributes: Any,
        count: int,
        inputs: Any,
        outputs: Any,
        gradients: Any,
        *more: Any,
    ) -> Any:
        wide = [None if x is None else [_float64(y) for y in x] for x in (inputs, outputs)]
        try:
            found = gradient_function(
                name, attributes, count, *wide, [_float64(g) for g in gradients], *more
            )
        except (TypeError, ValueError, tf.errors.OpError):
            own = [_as_is(g, like) for g, like in zip(gradients, outputs or (), strict=False)]
            found = gradient_function(name, attributes, count, inputs, outputs, own, *more)
        return _all_float64(found)

    @functools.wraps(record_operation)
    def recording(*args: Any, **kwargs: Any) -> None:
        asked = inspect.signature(record_operation).bind(*args, **kwargs).arguments
        outputs, backward = asked["output_tensors"], asked["backward_function"]
        if asked["op_type"] == "ReadVariableOp":
            # In a graph a variable's own gradient comes by here, which hands on what it gets.
            record_operation(**asked)
            return

        def back(*gradients: Any) -> Any:
            own = [_as_is(g, like) for g, like in zip(gradients, outputs, strict=True)]
            return _all_float64(backward(*own))

        record_operation(**asked | {"backward_function": back})

    register(widened)
    record.record_operation = recording
    try:
        yield
    finally:
        record.record_operation = record_operation
        register(gradient_function)


def _all_float64(gradients: Any) -> Any:
    # A function of one input may return one gradient, as it is.
    if isinstance(gradients, (list, tuple)):
        return [_float64(gradient) for gradient in gradients]
    return _float64(gradients)


def _float64(value: Any) -> Any:
    if isinstance(value, tf.IndexedSlices):
        return tf.IndexedSlices(_float64(value.values), value.indices, value.dense_shape)
    is_float = isinstance(value, tf.Tensor) and value.dtype.is_floating
    return tf.cast(value, tf.float64) if is_float else value


def _as_is(gradient: Any, like: Any) -> Any:
    is_float = isinstance(gradient, tf.Tensor) and gradient.dtype.is_floating
    return tf.cast(gradient, like.dtype) if is_float and like is not None else gradient
