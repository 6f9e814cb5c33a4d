"""A training step of any Keras model, under chosen precisions, and what each layer did in it.

The one way in tfamp to ask what a precision does to a model: fidelity, the audit and the doctor
stand on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Precision:
    """What each layer computes in.

    Attributes:
        name: For messages: `float64`, `mixed_float16`, ...
        computes_in: `float16`, `bfloat16`, `float32` or `float64` by layer path; a layer that is
            not named stays as it is. Variables keep their dtype.
        loss: The dtype of the loss.
        only_forward: Whether the way back goes in float64, from the values that these dtypes made
            on the way forward. Eager passes only.
    """

    name: str
    computes_in: Mapping[str, str]
    loss: str = "float32"
    only_forward: bool = False


class LayerCall(NamedTuple):
    """One call of a layer in a pass.

    Attributes:
        path: The layer's path, as in `Probe.layers`.
        outputs: Its float outputs, in the dtype in which the layer returned them.
        gradients: Of the scaled loss, with respect to each of them, of its shape and dtype; None
            where the loss does not depend on it.
    """

    path: str
    outputs: list[tf.Tensor]
    gradients: list[tf.Tensor | None]


class WeightGradient(NamedTuple):
    """The gradient of one trainable variable.

    Attributes:
        path: Path of the layer that holds it.
        variable: The variable's path.
        gradient: Dense, of the scaled loss, in the variable's dtype; None where the loss does not
            depend on it.
    """

    path: str
    variable: str
    gradient: tf.Tensor | None


class Pass(NamedTuple):
    """One way forward and back.

    Attributes:
        loss: Scalar, not scaled, of `model.losses` too.
        calls: Every call of a layer, in the order in which they returned.
        weights: One per trainable variable, in the model's order.
    """

    loss: tf.Tensor
    calls: list[LayerCall]
    weights: list[WeightGradient]


Read = Callable[..., Any]


class Probe:
    """Runs a model's training step under precisions of choice; the model stays what it is.

    >>> with Probe(model) as probe:
    ...     reference = probe.run(batch, probe.everywhere("float64"))
    ...     half = probe.run(batch, probe.mixed("float16"), scale=2.0**15)

    Every pass has the same weights, dropout masks and other random draws: drawn in float32
    whatever a layer computes in, from the same seeds. The updates of a pass (moving averages,
    seeds, counters) are undone after it. No optimizer steps. When the context ends, with an error
    too, policies, variables and random state are what they were.

    Args:
        model: Any built Keras model: functional, Sequential, subclassed, nested.
        loss: What `compile` takes, or a callable of (targets, outputs); None for the compiled
            one. `model.losses` are added.
        training: Whether dropout drops and BatchNormalization normalises by the batch.
        seed: Seed of what draws from no seed of its own.
        jit_compile: Whether XLA compiles the passes.

    Attributes:
        layers: The model's layers by path, containers among them, without input layers; equal
            paths are told apart by `#2`, `#3`.
        left_out: Sentences on what a pass could not do as asked: a layer without a float64 kernel,
            outputs inside a loop that nobody outside can see, a random operation that draws anew.
    """

    layers: dict[str, keras.layers.Layer]
    left_out: list[str]

    def everywhere(self, dtype: str) -> Precision:
        """Every layer and the loss in one dtype; `float64` is the reference."""
        raise NotImplementedError

    def mixed(self, dtype: str, float32: Iterable[str] = ()) -> Precision:
        """As under a mixed policy: the layers in 16 bits, the loss in float32.

        Of a model that has layers in 16 bits already, those in float32 were put there and stay.

        Args:
            dtype: `float16`, `bfloat16`; `float32` for the same in float32.
            float32: Paths of further layers that compute in float32.
        """
        raise NotImplementedError

    def run(
        self,
        batch: Any,
        precision: Precision,
        scale: float = 1.0,
        read: Read | None = None,
        given: Sequence[Any] = (),
        eager: bool = False,
    ) -> Any:
        """Takes one pass.

        Args:
            batch: (inputs, targets) or (inputs, targets, sample_weight), as tensors or arrays.
            precision: What each layer computes in.
            scale: What the loss is multiplied by before the way back.
            read: Function of a `Pass` and of `given`, traced into the pass, which returns tensors;
                None for all of the `Pass`. Traces are kept by precision, `read` and shapes: give
                the same function again, not a new lambda.
            given: Tensors for `read`.
            eager: Without a trace, which costs seconds, where a precision is used once.

        Returns:
            What `read` returned, with NumPy arrays for tensors.
        """
        raise NotImplementedError
