"""A model and the random state, held still while passes are taken through it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import keras_internals, layer_internals


class Stillness:
    """All that a pass through a model may move, as it was.

    The values of the model's variables (weights, moving averages, seeds of dropout, counters), of
    its metrics, of Keras's global seed generator and TensorFlow's global generator, and the random
    state of Python and NumPy. An optimizer takes no part in a pass. What TensorFlow's stateful
    operations draw, such as `tf.random.normal`, nobody can hold still.

    Args:
        model: A built model.
        seed: What its seed generators start from in each pass; None for where they are.
    """

    def __init__(self, model: keras.Model, seed: int | None) -> None:
        # In this order: making Keras's generator draws from Python's.
        self._python, self._numpy = random.getstate(), np.random.get_state()
        variables = [*model.variables, *model.metrics_variables]
        self._values = [(variable, np.array(variable.numpy())) for variable in variables]
        draws = [keras_internals.global_seed_generator().state, tf.random.get_global_generator()]
        self._generators = [(draws[0], np.array(draws[0].numpy()))]
        self._global = draws[1].state, draws[1].state.numpy()
        self._seeds: list[tuple[keras.Variable, np.ndarray]] = []
        if seed is not None:
            within = [model, *keras_internals.layers_within(model)]
            of_layers = [g for x in within for g in layer_internals.seed_generators_within(x)]
            states = [g.state for g in of_layers] + [draws[0]]
            self._seeds = [(state, np.array([seed, i])) for i, state in enumerate(states)]

    def begin(self) -> None:
        """Puts the seeds to where a pass begins; all else is as it was, or was put back."""
        for state, value in self._seeds:
            state.assign(tf.cast(value, state.dtype))

    def restore(self) -> None:
        """Puts all as it was."""
        for variable, value in [*self._values, *self._generators]:
            variable.assign(value)
        self._global[0].assign(self._global[1])
        random.setstate(self._python)
        np.random.set_state(self._numpy)


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """Has random floats drawn in float32 while it is open, whatever is asked for, and then cast.

    Dropout draws another mask in float16 than in float32 from the same seed.
    """

    def draw(drawn: Callable[[str], tf.Tensor], dtype: str, is_fixed: bool) -> tf.Tensor:
        if "float" not in dtype:
            return drawn(dtype)
        value = drawn("float32")
        return tf.cast(value, dtype) if is_fixed else value

    with layer_internals.replaced_draws(draw):
        yield


@contextlib.contextmanager
def inner_functions_inlined() -> Iterator[None]:
    """Has each `tf.function` inside a step run as the Python function that it was made of.

    Its own trace would keep the precision that its layers had when it was made.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def operations_as_written() -> Iterator[None]:
    """Has graphs run the operations that were traced, each rounding its result, as eagerly.

    Grappler, TensorFlow's optimizer of graphs, fuses a product with what follows it and leaves out
    casts there and back: a bfloat16 gradient on a CPU comes out up to a third more exact than the
    layers' dtypes say, and otherwise on another device.
    """
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        was = {"disable_meta_optimizer": before.get("disable_meta_optimizer", False)}
        tf.config.optimizer.set_experimental_options(was)
