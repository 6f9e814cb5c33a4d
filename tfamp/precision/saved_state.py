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

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision.accumulation import GradientAccumulator
from tfamp.run.scale_rules import ScaleRules

_PREFIX = "tfamp_"
_NUM_KERAS_OWN = 4
_SCALE_KEY = "3"


class SavedState:
    """Writes the state of a recorded optimizer to a store, and takes it from one.

    Args:
        rules: How the scale moves; None where nothing is scaled.
        inner: The inner optimizer.
        accumulator: Holds the unfinished accumulation group.
    """

    def __init__(
        self,
        rules: ScaleRules | None,
        inner: keras.optimizers.Optimizer,
        accumulator: GradientAccumulator,
    ) -> None:
        self._rules = rules
        self._inner = inner
        self._accumulator = accumulator
        # Iterations, learning rate, growth counter, scale: Keras's order. None before `build`.
        self._keras_own: Sequence[keras.Variable] | None = None
        # What Keras does not know, by name.
        self._counters: dict[str, keras.Variable] = {}
        # What a file held that was loaded before `build`.
        self._unread: dict[str, np.ndarray] = {}

    def build(self, own: Sequence[keras.Variable]) -> None:
        """Learns which variables there are, and gives them what was loaded before.

        Args:
            own: The optimizer's own without the inner one's, in its order: first those of
                `keras.optimizers.LossScaleOptimizer`.
        """
        sums = {id(variable) for variable in self._accumulator.sums}
        others = [variable for variable in own[_NUM_KERAS_OWN:] if id(variable) not in sums]
        self._keras_own = own[:_NUM_KERAS_OWN]
        self._counters = {variable.name: variable for variable in others}
        unread, self._unread = self._unread, {}
        if unread:
            # `apply` may build inside a tf.function.
            with tf.init_scope():
                self.read(unread)

    def write(self, store: Any) -> None:
        """Writes everything; before `build` what was loaded and not taken yet."""
        if self._keras_own is None:
            for key, value in self._unread.items():
                store[key] = value
            return
        for i, variable in enumerate([*self._keras_own, *self._inner.variables]):
            store[str(i)] = _array(variable)
        for name, variable in self._counters.items():
            store[_PREFIX + name] = _array(variable)
        for i, variable in enumerate(self._accumulator.sums):
            store[f"{_PREFIX}accumulator_{i}"] = _array(variable)
        store[f"{_PREFIX}is_scaling"] = np.int64(self._rules is not None)

    def read(self, store: Any) -> None:
        """Takes everything, or keeps it until `build`; changes nothing if something is wrong.

        Raises:
            ValueError: The state is that of another optimizer or of other weights, or the saved
                scale or the unfinished accumulation group does not fit.
        """
        saved = _arrays(store)
        self._check_group(saved)
        if self._keras_own is None:
            if _PREFIX + "microbatch" in saved:
                self._check_scale(saved)
            self._unread = saved
            return
        numbered = [saved[str(i)] for i in range(len(saved)) if str(i) in saved]
        is_ours = _PREFIX + "is_scaling" in saved
        inner_variables = self._inner.variables
        count, bare = len(numbered), len(inner_variables)
        if count == bare + _NUM_KERAS_OWN:
            own, inner = numbered[:_NUM_KERAS_OWN], numbered[_NUM_KERAS_OWN:]
            self._check_scale(saved)
        elif count == bare and not is_ours:
            own, inner = [], numbered
        elif not is_ours and all(v.ndim == 0 for v in numbered) and not np.any(numbered[:1]):
            return  # An optimizer that was never built: it holds no step's state.
        else:
            raise ValueError(
                f"The file's optimizer has {count} variables. This one reads {bare} (the inner "
                f"optimizer's alone) or {bare + _NUM_KERAS_OWN} (with a loss scale). Build the "
                "inner optimizer with the arguments, and the model with the layers, that were "
                "saved."
            )
        taken: list[tuple[keras.Variable, np.ndarray]] = []
        taken += zip(inner_variables, inner, strict=True)
        last_scale = _array(self._keras_own[-1])
        if own and self._takes_scale(saved):
            taken += zip(self._keras_own, own, strict=True)
            last_scale = own[-1]
        for name, variable in self._counters.items():
            saved_value = saved.get(_PREFIX + name)
            # A collapse was an event of the process that wrote the file.
            if saved_value is None or name == "collapsed_at":
                saved_value = self._fresh(name, last_scale)
            taken.append((variable, saved_value))
        for i, variable in enumerate(self._accumulator.sums):
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
        is_dynamic = self._rules is not None and self._rules.dynamic
        return is_dynamic and bool(saved.get(_PREFIX + "is_scaling", True))

    def _fresh(self, name: str, scale: np.ndarray) -> np.ndarray:
        starts = {
            "hysteresis_left": self._rules.hysteresis if self._rules else 1,
            "culprit": -1,
            "last_clean_scale": scale,
        }
        return np.asarray(starts.get(name, 0))

    def _check_group(self, saved: dict[str, np.ndarray]) -> None:
        microbatch = int(saved.get(_PREFIX + "microbatch", 0))
        if microbatch >= self._accumulator.group_size:
            raise ValueError(
                f"The file was saved after microbatch {microbatch} of an accumulation group; "
                f"gradient_accumulation_steps is {self._accumulator.group_size} here. Set it above "
                f"{microbatch}, or save at the end of a group."
            )

    def _check_scale(self, saved: dict[str, np.ndarray]) -> None:
        scale, rules = float(saved[_SCALE_KEY]), self._rules
        if rules is None or not self._takes_scale(saved):
            return
        if not rules.min_scale <= scale <= rules.max_scale:
            raise ValueError(
                f"The file's loss scale is {scale:g}, outside [min_scale={rules.min_scale:g}, "
                f"max_scale={rules.max_scale:g}]. Widen them to take it up; 0 and inf are scales "
                "that had died."
            )


def _array(variable: keras.Variable) -> np.ndarray:
    # Read through the tf.Variable: under a strategy a Keras variable has no numpy().
    return variable.value.numpy()


def _arrays(store: Any) -> dict[str, np.ndarray]:
    # Keras's stores have keys() and [] and nothing else that all of them share.
    return {key: np.asarray(store[key]) for key in store.keys()}  # noqa: SIM118
