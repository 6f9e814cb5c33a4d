"""What flows back between a model's layers, seen from outside, or kept from overflowing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfamp.precision import layer_internals
from tfamp.precision.layer_calls import is_in_trace, seen_calls
from tfamp.precision.rehearsal import Rehearsal


class FlownBack(NamedTuple):
    """A gradient with respect to an output of a layer.

    Attributes:
        layer: The layer's name.
        gradient: Of the output's shape and dtype, as it comes back from what uses the output.
        scale: float32 scalar, what the loss was multiplied by.
    """

    layer: str
    gradient: tf.Tensor
    scale: tf.Tensor


class WayBack:
    """Looks at gradients on their way back through the layers of a model.

    Each layer's call is surrounded by identities which do their work in their gradients, so that
    no value of the way forward changes. Where the rehearsal's way has a bound, what exceeds it
    becomes the bound, of its sign, wherever it passes from layer to layer: the layers below one
    that overflows get numbers that are large, and not infinities and after those NaN.

    Args:
        layers: The layers, by the names that they shall have.
        rehearsal: The rehearsal of the step in which they are called.
        num_ways: How many ways back it goes.

    Attributes:
        seen: Of each way what has flown back, in its order; of float outputs alone, and once where
            a container returns what one of its layers did.
        hidden: Names of layers whose outputs are inside a loop or a `tf.function` of the model's,
            where nobody outside can look.
    """

    def __init__(
        self,
        layers: Mapping[str, keras.layers.Layer],
        rehearsal: Rehearsal,
        num_ways: int,
    ) -> None:
        self._layers = layers
        self._names = {id(layer): name for name, layer in layers.items()}
        self._rehearsal = rehearsal
        # Kept, so that no other tensor gets the id.
        self._made: dict[int, Any] = {}
        self._used: dict[int, Any] = {}
        self.seen: list[list[FlownBack]] = [[] for _ in range(num_ways)]
        self.hidden: set[str] = set()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Looks at the layers' calls while it is open."""
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        with seen_calls(list(self._layers.values()), self._returned, self._called):
            yield

    def _called(self, layer: keras.layers.Layer, arguments: Any) -> Any:
        # What comes back of several uses of an output is summed, and two infinities would be NaN:
        # all but one of them pass by here. The sum passes where the output was returned.
        def passed(value: Any) -> Any:
            if not self._can_see(value) or id(value) not in self._used:
                self._used[id(value)] = value
                return value
            return self._tapped(value, None)

        return keras.tree.map_structure(passed, arguments)

    def _returned(self, layer: keras.layers.Layer, outputs: Any) -> Any:
        name = self._names[id(layer)]

        def passed(value: Any) -> Any:
            if _is_float(value) and not self._can_see(value):
                self.hidden.add(name)
            if not self._can_see(value) or id(value) in self._made:
                return value
            tapped = self._tapped(value, name)
            self._made[id(tapped)] = tapped
            return tapped

        return keras.tree.map_structure(passed, outputs)

    def _can_see(self, value: Any) -> bool:
        return _is_float(value) and is_in_trace(value, self._graph)

    def _tapped(self, value: tf.Tensor, name: str | None) -> tf.Tensor:
        @tf.custom_gradient
        def identity(value: tf.Tensor) -> Any:
            def back(gradient: tf.Tensor) -> tf.Tensor:
                return self._passed_back(gradient, name)

            return tf.identity(value), back

        return layer_internals.with_mask_of(value, identity(value))

    def _passed_back(self, gradient: tf.Tensor, name: str | None) -> tf.Tensor:
        if not is_in_trace(gradient, self._graph):
            return gradient
        rehearsal = self._rehearsal
        if name is not None and rehearsal.scale is not None:
            self.seen[rehearsal.way].append(FlownBack(name, gradient, rehearsal.scale))
        bound = rehearsal.bound
        if bound is None:
            return gradient
        # Not `clip_by_value`, which may make a number of a NaN.
        return tf.where(tf.abs(gradient) > bound, tf.sign(gradient) * bound, gradient)


def _is_float(value: Any) -> bool:
    return isinstance(value, tf.Tensor) and value.dtype.is_floating
