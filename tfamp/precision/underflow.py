"""The underflow meter: what float16 loses of a training step's gradients, while it trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import policy, replicas, underflow_counts
from tfamp.precision.meters import around, bare
from tfamp.precision.rehearsal import Rehearsal, Way, scale_of
from tfamp.precision.state_variables import device_variable
from tfamp.precision.underflow_counts import COLUMNS, FACTOR, Gradients
from tfamp.precision.underflow_found import LayerCounts, Measured
from tfamp.precision.way_back import WayBack
from tfamp.run.config import UNDERFLOW_OF

# The way of the update; the same, bounded; and, bounded as much, with the loss scaled by more.
_LARGEST = float(np.finfo(np.float16).max)
_WAYS = (Way(), Way(bound=_LARGEST / FACTOR), Way(FACTOR, bound=_LARGEST))

# Weights that are in no layer of the model, such as a variable that a train_step brings.
OTHERS = "(no layer)"

# Measurements that the device keeps at most; the host reads before the oldest is lost.
_LARGEST_RING = 64


class UnderflowMeter:
    """Each so many steps, finds out how much float16 loses of each layer's gradient.

    The step is rehearsed on its batch before it is taken, with one way forward, and ways back at
    its loss scale and at 2^8 times that. What is zero in the first and not in the second was lost.
    Training goes on bit for bit as without. What is lost at both scales is not counted.

    A dynamic loss scale stays just below what overflows, so at 2^8 times that many a gradient would
    be infinite, and all below it NaN. It is therefore brought to float16's largest number, as it
    passes from layer to layer (`WayBack`). For that alone sums may come out differently: what is
    compared are two ways back that are bounded alike, by bounds as far apart as the scales.

    Args:
        every: Steps between two measurements; the first is of this step.
        of: `"weights"`, or `"activations"`: gradients with respect to layers' outputs.

    Attributes:
        hidden: Layers whose outputs nobody outside can see, as those in a loop; known once the
            step is traced.
        longest_wait: Steps after which the host must read, before the oldest measurement is lost.

    Raises:
        ValueError: An argument is not allowed.
    """

    def __init__(self, every: int, of: str = UNDERFLOW_OF[0]) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"underflow_every={every!r}: it must be a whole number of steps, 1 or more. Leave "
                "it out to measure nothing."
            )
        if of not in UNDERFLOW_OF:
            raise ValueError(
                f"underflow_of={of!r}: it must be one of {', '.join(map(repr, UNDERFLOW_OF))}."
            )
        self.every = every
        self.of = of
        self.hidden: set[str] = set()

    def begin(
        self,
        model: keras.Model,
        optimizers: Mapping[str, keras.optimizers.Optimizer],
        step: int = 0,
        log_every: int = 1,
        steps_per_execution: int = 1,
    ) -> None:
        """Prepares to measure a model, before its step is traced.

        Args:
            model: The built model.
            optimizers: Those that train it.
            step: Steps that were taken before.
            log_every: Steps that the host would let pass until it reads.
            steps_per_execution: Steps of one call, in which it cannot read.

        Raises:
            ValueError: No layer computes in float16, or the model is not built.
        """
        if not model.built:
            raise ValueError(
                f"underflow_every={self.every}: {model.name} is not built yet, so its layers are "
                "not known. Call it on a batch, or model.build(input_shape), first."
            )
        if model.compute_dtype != "float16" and not policy.float16_layers(model):
            raise ValueError(
                f"underflow_every={self.every}, but no layer of {model.name} computes in float16, "
                "so nothing underflows. Set the policy mixed_float16 before the model is built, or "
                "leave underflow_every out."
            )
        self._model = model
        self._optimizers = dict(optimizers)
        self._strategy = model.distribute_strategy
        self._layers = _layers(model)
        self._owners = _owners(model, self._layers)
        of_weights = list(dict.fromkeys(self._owners.values())) + [OTHERS]
        self._names = of_weights if self.of == "weights" else list(self._layers)
        self._places = {name: place for place, name in enumerate(self._names)}
        at_once = math.ceil(steps_per_execution / self.every)
        wanted = math.ceil((log_every + steps_per_execution) / self.every)
        self._size = max(at_once, min(_LARGEST_RING, wanted)) + 1
        self.longest_wait = max(1, (self._size - 1) * self.every - steps_per_execution + 1)
        with self._strategy.scope():
            if model.optimizer is not None and not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            shape = (self._size, len(self._names), COLUMNS)
            self._counts = device_variable("underflow_counts", np.zeros(shape), "int64")
            scales = np.zeros((self._size, len(self._optimizers)))
            self._scales = device_variable("underflow_scales", scales)
            self._at = device_variable("underflow_steps", np.zeros(self._size), "int64")
            self._written = device_variable("underflow_written", 0, "int64")
            self._calls = device_variable("underflow_calls", step, "int64")
        self._start, self._read = step, 0

    def around(self, step: Callable[..., Any], jit_compile: bool = False) -> Callable[..., Any]:
        """Wraps a training step in the meter; nothing else should be wrapped around it.

        Args:
            step: What takes a batch, in a replica context, such as `model.train_step`.
            jit_compile: Whether XLA shall compile the step, and the meter's work by itself; what
                comes back may then not be compiled as a whole. (XLA:CPU runs what stands in a
                branch ten times as slowly, and the step is the same to the bit without the branch.)
        """
        taken = _compiled(step) if jit_compile else step

        def measured_step(batch: Any) -> Any:
            self._look(bare(step), batch, jit_compile)
            return taken(batch)

        return around(measured_step, step)

    def read(self) -> list[Measured]:
        """What was measured since the last read; waits for the device."""
        written = int(self._local(self._written)[0])
        places = [each % self._size for each in range(self._read, written)]
        self._read = written
        if not places:
            return []
        # Each replica has counted its own part of the batch.
        counts = np.sum(self._local(self._counts), axis=0)
        scales = np.max(self._local(self._scales), axis=0)
        at = self._local(self._at)[0]
        return [self._measured(int(at[i]), scales[i], counts[i]) for i in places]

    # On the device.

    def _look(self, step: Callable[[Any], Any], batch: Any, jit_compile: bool) -> None:
        flat = keras.tree.flatten(batch)
        present = [i for i, value in enumerate(flat) if value is not None]
        self._calls.assign_add(1)
        calls = tf.convert_to_tensor(self._calls.value)
        is_due = tf.equal(calls % self.every, 0)
        # What is compiled is compiled with the first step, whose time nobody counts.
        is_first = tf.equal(calls, self._start + 1) & jit_compile

        def count(*values: Any) -> tuple[tf.Tensor, tf.Tensor]:
            found = dict(zip(present, values, strict=True))
            whole = [found.get(i) for i in range(len(flat))]
            return self._counted(step, keras.tree.pack_sequence_as(batch, whole))

        counted = _compiled(count) if jit_compile else count

        def measure(is_due: tf.Tensor, calls: tf.Tensor, *values: Any) -> None:
            self._write(is_due, calls, *counted(*values))

        replicas.cond(
            is_due | is_first,
            measure,
            lambda *_: None,
            args=[is_due, calls, *(flat[i] for i in present)],
        )

    def _counted(self, step: Callable[[Any], Any], batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        rehearsal = Rehearsal(self._model, list(self._optimizers.values()), _WAYS)
        way_back = WayBack(self._layers, rehearsal, len(_WAYS))
        with way_back.open():
            gone = rehearsal.of(step, batch)
        by_layer: dict[str, list[tf.Tensor]] = {name: [] for name in self._names}
        if self.of == "activations":
            self._tell(way_back.hidden)
            for ways in zip(*way_back.seen, strict=True):
                gradients = Gradients(*(each.gradient for each in ways))
                counts = underflow_counts.counted(gradients, ways[0].scale, None)
                by_layer[ways[0].layer].append(counts)
        for each in gone if self.of == "weights" else []:
            for variable, *ways in zip(each.variables, *each.gradients, strict=True):
                if ways[0] is not None:
                    dense, is_there = zip(*map(_dense, ways), strict=True)
                    counts = underflow_counts.counted(Gradients(*dense), each.scale, is_there[0])
                    by_layer[self._owners.get(id(variable), OTHERS)].append(counts)
        none = tf.zeros([COLUMNS], tf.int64)
        counts = tf.stack([tf.add_n(each) if each else none for each in by_layer.values()])
        scales = [scale_of(optimizer) for optimizer in self._optimizers.values()]
        return counts, tf.stack(scales)

    def _write(
        self, is_due: tf.Tensor, calls: tf.Tensor, counts: tf.Tensor, scales: tf.Tensor
    ) -> None:
        position = tf.convert_to_tensor(self._written.value) % self._size
        for variable, row in ((self._counts, counts), (self._scales, scales), (self._at, calls)):
            one = tf.IndexedSlices(row[tf.newaxis], position[tf.newaxis])
            variable.value.scatter_update(one)
        # Only once the values are there, as in the optimizer's history.
        with tf.control_dependencies([counts, scales]):
            self._written.assign_add(tf.cast(is_due, tf.int64))

    def _tell(self, hidden: set[str]) -> None:
        new = sorted(hidden - self.hidden)
        self.hidden |= hidden
        if new:
            warnings.warn(
                f"underflow_of='activations': the outputs of {', '.join(new)} are inside a loop or "
                "a tf.function of the model's, where nobody outside can see them: they are not "
                "counted.",
                stacklevel=2,
            )

    # On the host.

    def _local(self, variable: keras.Variable) -> list[np.ndarray]:
        values = self._strategy.experimental_local_results(variable.value)
        return [value.numpy() for value in values]

    def _measured(self, step: int, scales: np.ndarray, counts: np.ndarray) -> Measured:
        layers = {}
        for name, row in zip(self._names, counts.tolist(), strict=True):
            if any(row):
                layers[name] = LayerCounts.of(row)
        named_scales = dict(zip(self._optimizers, map(float, scales), strict=True))
        return Measured(step, self.of, named_scales, layers)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)


def _layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    inputs = keras.layers.InputLayer
    return policy.by_path(x for x in policy.all_layers(model) if not isinstance(x, inputs))


def _owners(model: keras.Model, layers: Mapping[str, keras.layers.Layer]) -> dict[int, str]:
    """The name of the layer that holds each trained variable, by the ids it may come under."""
    trained = {id(variable) for variable in model.trainable_variables}
    owners = {}
    for name, layer in [*layers.items(), (model.name, model)]:
        for variable in policy.own_variables(layer):
            if id(variable) in trained:
                owners[id(variable)] = owners[id(variable.value)] = name
    return owners


def _dense(gradient: tf.Tensor | tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor | None]:
    """A gradient with all rows, and which of them were looked up where not all were."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient, None
    rows = tf.get_static_value(gradient.dense_shape)[0]
    values = tf.cast(gradient.values, tf.float32)
    is_there = tf.math.unsorted_segment_sum(tf.ones_like(gradient.indices), gradient.indices, rows)
    shape = [rows] + [1] * (len(values.shape) - 1)
    summed = tf.math.unsorted_segment_sum(values, gradient.indices, rows)
    return summed, tf.reshape(is_there > 0, shape)
