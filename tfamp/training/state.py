"""The state of a training run as one thing: taken to the host, and put back to the bit."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.run.directory import written_whole
from tfamp.telemetry.callback import PrecisionTelemetry

_ABOUT = "about"


@dataclasses.dataclass(frozen=True)
class CapturedState:
    """What `TrainingState.capture` took: host memory alone, which no later step changes.

    Attributes:
        step: Steps taken, which is also the position in the data: `build(config, step)`, or
            `start_step` of `tfamp.data.registry.load`.
        arrays: Everything on the device and the random state, by role: `model/0`, ...,
            `metrics/0`, ..., `optimizer/NAME`, `random/NAME`.
        figures: `PrecisionTelemetry.state()`; None where there was no telemetry.
    """

    step: int
    arrays: dict[str, np.ndarray]
    figures: dict[str, Any] | None

    def write(self, path: Path) -> None:
        """Writes one .npz file, whole or not at all."""
        about = {
            "step": self.step,
            "figures": self.figures,
            "dtypes": {name: array.dtype.name for name, array in self.arrays.items()},
        }
        # NumPy's files do not know bfloat16: bytes, and the dtype beside them.
        content: dict[str, Any] = {name: _as_bytes(array) for name, array in self.arrays.items()}
        content[_ABOUT] = np.array(json.dumps(about))
        with written_whole(path) as partial, partial.open("wb") as file:
            np.savez(file, **content)

    @classmethod
    def read(cls, path: Path) -> CapturedState:
        """Reads what `write` wrote; no code in the file is ever run."""
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file[_ABOUT]))
            arrays = {
                name: file[name].view(dtype)[..., 0] for name, dtype in about["dtypes"].items()
            }
        return cls(about["step"], arrays, about["figures"])


class TrainingState:
    """All of a run that moves while it trains.

    The model's variables (weights, moving averages, the seeds of its dropout), the optimizer's
    (slots, averages of weights, loss scale and counters, an unfinished group), the metrics so far,
    the figures of the telemetry, the step, and the random state of Python, NumPy, TensorFlow's
    global generator and Keras's. What of these is not there yet is made.

    >>> state = TrainingState(run.model, telemetry)
    >>> captured = state.capture()            # between two steps
    >>> run = build(config, captured.step)    # in another process, say
    >>> TrainingState(run.model, telemetry).restore(captured)

    What a layer draws by TensorFlow's stateful operations, such as `tf.random.normal`, is not in
    it: their state lies in their kernels, which nobody can read. Nor is the optimizer's history, a
    record that the telemetry reads at marks: capture at one.

    Args:
        model: A compiled model.
        batch: The specs of a batch, as `Step` takes it: `dataset.element_spec`. May be left out
            where the model was trained or evaluated before.
        telemetry: What counts the steps and keeps the figures, if they are to be in the state.
    """

    def __init__(
        self,
        model: keras.Model,
        batch: Any = None,
        telemetry: PrecisionTelemetry | None = None,
    ) -> None:
        self.model = model
        self._telemetry = telemetry
        # Made now where there is none: making it draws from Python's random numbers.
        keras_internals.global_seed_generator()
        with model.distribute_strategy.scope():
            if batch is not None:
                keras_internals.build_for(model, batch)
            model.optimizer.build(model.trainable_variables)

    def capture(self) -> CapturedState:
        """Copies the state to the host; waits for the device."""
        optimizer: dict[str, np.ndarray] = {}
        self.model.optimizer.save_own_variables(optimizer)
        arrays = {
            **_numbered("model", self.model.variables),
            **_numbered("metrics", self.model.metrics_variables),
            **{f"optimizer/{name}": np.array(value) for name, value in optimizer.items()},
            **{f"random/{name}": value for name, value in self._random().items()},
        }
        return CapturedState(
            step=0 if self._telemetry is None else self._telemetry.step,
            arrays=arrays,
            figures=None if self._telemetry is None else self._telemetry.state(),
        )

    def restore(self, captured: CapturedState) -> None:
        """Puts the state back; where it does not fit, nothing of the model is changed.

        Args:
            captured: Of this model, or of another one that was built the same.

        Raises:
            ValueError: The model or its optimizer is another one.
        """
        arrays = captured.arrays
        assigned = [
            *_matched("model", self.model.variables, arrays),
            *_matched("metrics", self.model.metrics_variables, arrays),
        ]
        self.model.optimizer.load_own_variables(_below("optimizer", arrays))
        for variable, value in assigned:
            variable.assign(value)
        self._set_random(_below("random", arrays))
        if self._telemetry is not None and captured.figures is not None:
            self._telemetry.restore(captured.figures)

    def _random(self) -> dict[str, np.ndarray]:
        version, words, gauss = random.getstate()
        _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        return {
            "python": np.array([version, *words], np.int64),
            "python_gauss": np.array(np.nan if gauss is None else gauss),
            "numpy": np.array([*keys, position, has_gauss], np.int64),
            "numpy_gauss": np.array(cached),
            "tensorflow": _value(tf.random.get_global_generator().state),
            "keras": _value(keras_internals.global_seed_generator().state.value),
        }

    def _set_random(self, state: Mapping[str, np.ndarray]) -> None:
        version, *words = state["python"].tolist()
        gauss = float(state["python_gauss"])
        random.setstate((version, tuple(words), None if np.isnan(gauss) else gauss))
        *keys, position, has_gauss = state["numpy"].tolist()
        cached = float(state["numpy_gauss"])
        np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, cached))
        tf.random.get_global_generator().state.assign(state["tensorflow"])
        keras_internals.global_seed_generator().state.assign(state["keras"])


def _numbered(role: str, variables: Iterable[keras.Variable]) -> dict[str, np.ndarray]:
    # Two layers of a subclassed model may have one path.
    return {f"{role}/{i}": _value(variable.value) for i, variable in enumerate(variables)}


def _below(role: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = f"{role}/"
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _matched(
    role: str, variables: list[keras.Variable], arrays: Mapping[str, np.ndarray]
) -> list[tuple[keras.Variable, np.ndarray]]:
    values = _below(role, arrays)
    if len(values) != len(variables):
        raise ValueError(
            f"The state holds {len(values)} variables of the {role}, which has {len(variables)} "
            "here. Build and compile the model as it was when the state was captured."
        )
    pairs = [(variable, values[str(i)]) for i, variable in enumerate(variables)]
    for variable, value in pairs:
        if tuple(variable.shape) != value.shape:
            raise ValueError(
                f"The state holds an array of shape {value.shape} where {variable.path!r} has "
                f"{tuple(variable.shape)}. Build the model with the layers that it had when the "
                "state was captured."
            )
    return pairs


def _value(variable: tf.Variable) -> np.ndarray:
    # A copy: on a CPU `numpy` may show the variable's own memory.
    return np.array(variable.numpy())


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint8)
