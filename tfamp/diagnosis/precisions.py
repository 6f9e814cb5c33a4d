"""What each layer of a model computes in, set for a while."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import keras

from tfamp.precision import layer_internals

SIXTEEN_BITS = ("float16", "bfloat16")
DTYPES = (*SIXTEEN_BITS, "float32", "float64")


@dataclasses.dataclass(frozen=True)
class Precision:
    """What each layer computes in.

    Attributes:
        name: For messages: `float64`, `mixed_float16`, ...
        computes_in: `float16`, `bfloat16`, `float32` or `float64` by layer path; a layer that is
            not named stays as it is. Variables keep their dtype.
        inputs: The dtype to which functional models, nested ones too, convert float inputs; None
            for each input's own. One that is 16 bits wide rounds whole numbers above 2048 (256 in
            bfloat16), before any layer sees them.
        loss: The dtype of the loss.
        only_forward: Whether the way back goes in float64, from the values that these dtypes made
            on the way forward.
    """

    name: str
    computes_in: Mapping[str, str]
    inputs: str | None = None
    loss: str = "float32"
    only_forward: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others."""
        layers = tuple(sorted(self.computes_in.items()))
        return layers, self.inputs, self.loss, self.only_forward


class PolicyOf(keras.DTypePolicy):
    """A policy with any compute dtype beside any dtype of variables.

    Keras has none with float64 beside float32 variables, and a built layer's variables stay as
    they are: one whose policy says that both are float64 casts nothing, and fails.

    Args:
        compute_dtype: What the layer computes in.
        variable_dtype: What its variables are.
    """

    def __init__(self, compute_dtype: str, variable_dtype: str) -> None:
        super().__init__(compute_dtype)
        self._variables_in = variable_dtype

    @property
    def variable_dtype(self) -> str:
        """The dtype of the layer's variables."""
        return self._variables_in


def policy_of(compute_dtype: str, variable_dtype: str) -> keras.DTypePolicy:
    """Keras's own policy where there is one: a user's layer may ask for its name."""
    if compute_dtype == variable_dtype:
        return keras.DTypePolicy(compute_dtype)
    if compute_dtype in SIXTEEN_BITS and variable_dtype == "float32":
        return keras.DTypePolicy(f"mixed_{compute_dtype}")
    return PolicyOf(compute_dtype, variable_dtype)


@contextlib.contextmanager
def computing_in(
    precision: Precision, layers: Mapping[str, keras.layers.Layer], models: Iterable[keras.Model]
) -> Iterator[None]:
    """Has layers compute in a precision while it is open.

    Args:
        precision: What in.
        layers: The layers by path.
        models: The model, and those inside it.
    """
    slots = [(layers[path], layer_internals.policy_slot(layers[path])) for path in layers]
    inputs = [tensor for model in models for tensor in float_inputs(model)]
    dtypes = [(tensor, tensor.dtype) for tensor in inputs]
    try:
        for path, dtype in precision.computes_in.items():
            layer = layers[path]
            # Of a layer in a map, the policy that the map has for it.
            variables = layer.variable_dtype
            layer_internals.set_policy_slot(layer, policy_of(dtype, variables))
        if precision.inputs is not None:
            for tensor in inputs:
                layer_internals.set_symbolic_dtype(tensor, precision.inputs)
        with layer_internals.loss_dtype(precision.loss):
            yield
    finally:
        for tensor, dtype in dtypes:
            layer_internals.set_symbolic_dtype(tensor, dtype)
        for layer, policy in slots:
            layer_internals.set_policy_slot(layer, policy)


def float_inputs(model: keras.Model) -> list[keras.KerasTensor]:
    """The symbolic float inputs of a functional or Sequential model; of another there are none."""
    try:
        inputs = model.inputs
    except (AttributeError, ValueError):
        return []
    return [tensor for tensor in inputs or () if "float" in tensor.dtype]
