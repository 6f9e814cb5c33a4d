"""The state of a `LossScaleOptimizer` in a `.keras` or `.weights.h5` file.

A store is a mapping from keys to arrays. Under "0", "1", ... stands what Keras's own
`LossScaleOptimizer` would write there (iterations, learning rate, growth counter, scale, then the
inner optimizer's variables), under `tfamp_*` what it does not know. So four kinds of file can be
read, and each either restores the scale or holds none:

- tfamp's: everything comes back, an unfinished accumulation group too.
- Keras's `LossScaleOptimizer`: scale, growth counter and inner state; the other counters restart.
- A bare optimizer's, or tfamp's of a run without a loss scale: inner state; the scale stays.
- One of an optimizer that was never built, or of none: nothing is there to be taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision.scale_machine import ScaleMachine
from tfamp.run.scale_rules import ScaleRules

_PREFIX = "tfamp_"
_NUM_KERAS_OWN = 4
_SCALE_KEY = "3"


@dataclasses.dataclass(frozen=True)
class SavedState:
    """Which variables an optimizer saves, and under which names.

    Args:
        keras_own: Iterations, learning rate, growth counter, scale: Keras's order.
        inner: The inner optimizer's variables; without its slots before `build`.
        counters: The variables that Keras does not know, by name.
        accumulators: Sums of the unfinished accumulation group, one per weight, or none.
        group_size: Microbatches of an accumulation group.
        rules: How the scale moves here.
        is_scaling: Whether the loss is scaled at all.
    """

    keras_own: Sequence[keras.Variable]
    inner: Sequence[keras.Variable]
    counters: dict[str, keras.Variable]
    accumulators: Sequence[keras.Variable]
    group_size: int
    rules: ScaleRules
    is_scaling: bool

    def write(self, store: Any) -> None:
        """Writes everything, of a built optimizer."""
        for i, variable in enumerate([*self.keras_own, *self.inner]):
            store[str(i)] = _array(variable)
        for name, variable in self.counters.items():
            store[_PREFIX + name] = _array(variable)
        for i, variable in enumerate(self.accumulators):
            store[f"{_PREFIX}accumulator_{i}"] = _array(variable)
        store[f"{_PREFIX}is_scaling"] = np.int64(self.is_scaling)

    def check(self, store: Any) -> None:
        """What can be checked before `build`.

        Raises:
            ValueError: The saved scale or the unfinished accumulation group does not fit.
        """
        saved = _read(store)
        if _PREFIX + "microbatch" not in saved:
            return
        self._check_scale(saved)
        microbatch = int(saved[_PREFIX + "microbatch"])
        if microbatch >= self.group_size:
            raise ValueError(
                f"The file was saved after microbatch {microbatch} of an accumulation group; "
                f"gradient_accumulation_steps is {self.group_size} here. Set it above "
                f"{microbatch}, or save at the end of a group."
            )

    def read(self, store: Any) -> None:
        """Takes everything, for a built optimizer; nothing is changed if something is wrong.

        Raises:
            ValueError: The state is that of another optimizer or of other weights.
        """
        self.check(store)
        saved = _read(store)
        numbered = [saved[str(i)] for i in range(len(saved)) if str(i) in saved]
        is_ours = _PREFIX + "is_scaling" in saved
        count, bare = len(numbered), len(self.inner)
        if count == bare + _NUM_KERAS_OWN:
            own, inner = numbered[:_NUM_KERAS_OWN], numbered[_NUM_KERAS_OWN:]
            self._check_scale(saved)
        elif count == bare and not is_ours:
            own, inner = [], numbered
        elif all(value.ndim == 0 for value in numbered) and not np.any(numbered[:1]):
            return  # An optimizer that was never built: it holds no step's state.
        else:
            raise ValueError(
                f"The file's optimizer has {count} variables. This one reads {bare} (the inner "
                f"optimizer's alone) or {bare + _NUM_KERAS_OWN} (with a loss scale). Build the "
                "inner optimizer with the arguments, and the model with the layers, that were "
                "saved."
            )
        taken: list[tuple[keras.Variable, np.ndarray]] = []
        taken += zip(self.inner, inner, strict=True)
        last_scale = _array(self.keras_own[-1])
        if own and self._takes_scale(saved):
            taken += zip(self.keras_own, own, strict=True)
            last_scale = own[-1]
        for name, variable in self.counters.items():
            saved_value = saved.get(_PREFIX + name)
            # A collapse was an event of the process that wrote the file.
            if saved_value is None or name == "collapsed_at":
                saved_value = self._fresh(name, last_scale)
            taken.append((variable, saved_value))
        for i, variable in enumerate(self.accumulators):
            nothing = np.zeros(variable.shape, "float32")
            taken.append((variable, saved.get(f"{_PREFIX}accumulator_{i}", nothing)))
        for variable, value in taken:
            if tuple(variable.shape) != value.shape:
                raise ValueError(
                    f"The file's optimizer holds an array of shape {value.shape} where "
                    f"{variable.path!r} has {tuple(variable.shape)}. Build the inner optimizer "
                    "with the arguments, and the model with the layers, that were saved."
                )
        for variable, value in taken:
            variable.assign(value)

    def _takes_scale(self, saved: dict[str, np.ndarray]) -> bool:
        # A static scale is an argument, no state; and a run without a scale left none.
        return self.rules.dynamic and bool(saved.get(_PREFIX + "is_scaling", True))

    def _fresh(self, name: str, scale: np.ndarray) -> np.ndarray:
        starts = {
            "hysteresis_left": self.rules.hysteresis,
            "culprit": -1,
            "last_clean_scale": scale,
        }
        return np.asarray(starts.get(name, 0))

    def _check_scale(self, saved: dict[str, np.ndarray]) -> None:
        scale = float(saved[_SCALE_KEY])
        rules = self.rules
        if self._takes_scale(saved) and not rules.min_scale <= scale <= rules.max_scale:
            raise ValueError(
                f"The file's loss scale is {scale:g}, outside [min_scale={rules.min_scale:g}, "
                f"max_scale={rules.max_scale:g}]. Widen them to take it up; 0 and inf are scales "
                "that had died."
            )


class SavesState:
    """The half of `LossScaleOptimizer` that Keras calls to save it and to load it."""

    built: bool
    inner_optimizer: keras.optimizers.Optimizer
    _scales: bool
    _machine: ScaleMachine
    _group_size: int
    _variables: list[keras.Variable]
    _accumulators: list[keras.Variable]
    _iterations: keras.Variable
    _learning_rate: keras.Variable
    # What a file held that was loaded before `build`.
    _unread: dict[str, np.ndarray]

    def save_own_variables(self, store: Any) -> None:
        """Writes the state to a store of `.keras` or `.weights.h5`."""
        if self.built:
            self._saved_state().write(store)
        for key, value in self._unread.items():
            store[key] = value

    def load_own_variables(self, store: Any) -> None:
        """Takes the state from a store; before `build` it is kept and taken there.

        Raises:
            ValueError: The store's state does not fit this optimizer.
        """
        if self.built:
            self._saved_state().read(store)
            self._machine.forget_collapse()
        else:
            self._saved_state().check(store)
            self._unread = _read(store)

    def _take_unread(self) -> None:
        # At the end of `build`, which may be inside a tf.function.
        unread, self._unread = self._unread, {}
        if unread:
            with tf.init_scope():
                self._saved_state().read(unread)

    def _saved_state(self) -> SavedState:
        machine = self._machine
        own = [self._iterations, self._learning_rate, machine.growth_counter, machine.scale]
        known = {id(variable) for variable in [*own, *self._accumulators]}
        others = [variable for variable in self._variables if id(variable) not in known]
        return SavedState(
            keras_own=own,
            inner=self.inner_optimizer.variables,
            counters={variable.name: variable for variable in others},
            accumulators=self._accumulators,
            group_size=self._group_size,
            rules=machine.rules,
            is_scaling=self._scales,
        )

    def __dir__(self) -> list[str]:
        # Keras saves and loads what it finds here. `variables` holds the inner optimizer's state
        # already; a second copy doubles the file, and cannot be loaded before `build`.
        return [name for name in super().__dir__() if name != "inner_optimizer"]


def _array(variable: keras.Variable) -> np.ndarray:
    # Read through the tf.Variable: under a strategy a Keras variable has no numpy().
    return variable.value.numpy()


def _read(store: Any) -> dict[str, np.ndarray]:
    # Keras's stores have keys() and [] and nothing else that all of them share.
    return {key: np.asarray(store[key]) for key in store.keys()}  # noqa: SIM118
