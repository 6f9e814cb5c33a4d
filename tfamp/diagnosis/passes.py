"""One way forward and back through a model, and what each layer did on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfamp.diagnosis import losses
from tfamp.precision import layer_internals
from tfamp.precision.layer_calls import is_in_trace, wrapped_calls
from tfamp.training.step import Step


class LayerCall(NamedTuple):
    """One call of a layer in a pass.

    Attributes:
        path: The layer's path, as in `Probe.layers`.
        outputs: Its float outputs, in the dtype in which the layer returned them; without one that
            a layer inside it, or before it, returned, which is counted there.
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
        gradient: Dense, of the scaled loss, in the variable's dtype (in float64 where the way back
            went in it); None where the loss does not depend on it.
    """

    path: str
    variable: str
    gradient: tf.Tensor | None


class Pass(NamedTuple):
    """One way forward and back.

    Attributes:
        loss: Scalar, not scaled, with `model.losses`.
        calls: Every call of a layer, in the order in which they returned.
        weights: One per trainable variable, in the model's order.
    """

    loss: tf.Tensor
    calls: list[LayerCall]
    weights: list[WeightGradient]


class LayerFailed(Exception):
    """A layer could not be called; the error is its cause.

    Attributes:
        path: The innermost one.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    @property
    def reason(self) -> str:
        """What the error says, without the line that Keras puts before it, and its colours."""
        text = re.sub(r"\x1b\[\d*m", "", str(self.__cause__))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = [x for x in lines if not x.startswith("Exception encountered when calling")]
        return said[0] if said else type(self.__cause__).__name__


def take(
    step: Step,
    batch: Any,
    scale: tf.Tensor,
    layers: Mapping[str, keras.layers.Layer],
    holders: Mapping[int, str],
    training: bool,
    unseen: Callable[[str], None],
) -> Pass:
    """Goes forward and back, traced or eagerly, in whatever the layers compute in now.

    Args:
        step: The model's step.
        batch: Tensors, as `Step` takes them.
        scale: float64 scalar, what the loss is multiplied by.
        layers: Whose calls to note, by path.
        holders: Path of the layer that holds a trainable variable, by the variable's `id`.
        training: As for `Step.loss`.
        unseen: Called with the path of a layer that was called where its outputs cannot be seen.

    Raises:
        LayerFailed: A layer could not be called.
    """
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    paths = {id(layer): path for path, layer in layers.items()}
    seen: list[tuple[str, list[tf.Tensor]]] = []
    known: set[int] = set()
    failed: list[tuple[str, Exception]] = []

    with tf.GradientTape() as tape:

        def note(layer: keras.layers.Layer, call: Callable[[], Any]) -> Any:
            try:
                returned = call()
            except Exception as error:
                # Keras makes another error of it on the way out of each layer around.
                failed.append((paths[id(layer)], error))
                raise
            floats = [output for output in keras.tree.flatten(returned) if _is_float(output)]
            visible = [output for output in floats if is_in_trace(output, graph)]
            if len(visible) < len(floats):
                unseen(paths[id(layer)])
            new = [output for output in visible if id(output) not in known]
            known.update(map(id, new))
            # Before the first weight, the tape would look away.
            tape.watch(new)
            seen.append((paths[id(layer)], new))
            return returned

        try:
            with wrapped_calls(list(layers.values()), note):
                outputs = step.outputs(batch, training)
        except Exception:
            if not failed:
                raise
            innermost, error = failed[0]
            raise LayerFailed(innermost) from error
        loss = losses.loss_of(step, batch, outputs, training)
        scaled = loss * tf.cast(scale, loss.dtype)

    variables = step.model.trainable_variables
    of_layers = [output for _, of_call in seen for output in of_call]
    found = [_dense(g) for g in tape.gradient(scaled, [*variables, *of_layers])]
    weights = [
        WeightGradient(holders[id(variable)], variable.path, gradient)
        for variable, gradient in zip(variables, found[: len(variables)], strict=True)
    ]
    of_outputs = iter(found[len(variables) :])
    calls = [
        LayerCall(path, of_call, [next(of_outputs) for _ in of_call]) for path, of_call in seen
    ]
    return Pass(loss, calls, weights)


def take_with_exact_way_back(*args: Any) -> Pass:
    """As `take`, with the way back in float64."""
    with layer_internals.gradients_in_float64():
        return take(*args)


def _is_float(value: Any) -> bool:
    return isinstance(value, tf.Tensor) and value.dtype.is_floating


def _dense(gradient: Any) -> tf.Tensor | None:
    return gradient if gradient is None else tf.convert_to_tensor(gradient)
