"""Passes under several precisions and scales on the same batches, each beside the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfamp.diagnosis import comparing, sums, tally
from tfamp.diagnosis.comparing import path_in
from tfamp.diagnosis.non_finite import check_reference
from tfamp.diagnosis.probe import Precision, Probe
from tfamp.diagnosis.tally import Tally
from tfamp.run.fidelity import SCALED

Say = Callable[[str], None]
# A precision's name, and log2 of the scale; None where nothing is scaled.
Setting = tuple[str, int | None]

DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
HALF = SCALED
SINGLE: Setting = ("float32", None)


class Reached(NamedTuple):
    """What the reference says of a layer, over all batches.

    Attributes:
        outputs: Entries and sum of squares of what its calls returned.
        gradients: The same of the gradients with respect to them.
        activation_exponents: Their exponents, as in `Reference`; None where none reach it.
        weight_exponents: Those of its weights' gradients; None without any.
    """

    outputs: tuple[float, float]
    gradients: tuple[float, float]
    activation_exponents: np.ndarray | None
    weight_exponents: np.ndarray | None


class Sweep:
    """Takes passes and keeps their tallies.

    Args:
        model: The model.
        probe: Takes passes of it.
        batches: On which.
        say: Is told what goes on.
        float32: Paths of layers that compute in float32 under the 16-bit precisions.
        is_eager: Whether passes other than the reference's go without a trace.

    Attributes:
        weights: By setting and layer, the tallies of the weights' gradients over all batches.
        activations: The same of the gradients with respect to outputs.
        reached: By layer, in the order in which they first returned.
        limits: Sentences on what could not be compared.
    """

    def __init__(
        self,
        model: keras.Model,
        probe: Probe,
        batches: Sequence[Any],
        say: Say,
        float32: Iterable[str] = (),
        is_eager: bool = False,
    ) -> None:
        self.model = model
        self.probe = probe
        self.float32 = tuple(float32)
        self.is_eager = is_eager
        self.batches = batches
        self.weights: dict[Setting, dict[str, Tally]] = {}
        self.activations: dict[Setting, dict[str, Tally]] = {}
        self.reached: dict[str, Reached] = {}
        self.limits: list[str] = []
        self.say = say

    def measure(self, settings: Iterable[Setting]) -> None:
        """Takes a pass per batch and setting, and one for the reference.

        Raises:
            NonFiniteReference: The loss or a gradient is not finite in float64.
        """
        wanted = [each for each in dict.fromkeys(settings) if each not in self.weights]
        if not wanted:
            return
        found: dict[Setting, list[tuple[dict[str, Tally], dict[str, Tally]]]]
        found = {setting: [] for setting in wanted}
        references = []
        for number, batch in enumerate(self.batches):
            said = f"batch {number + 1} of {len(self.batches)}" if len(self.batches) > 1 else ""
            reference = self._reference(batch, said)
            references.append(reference.reached)
            for setting in wanted:
                self.say(" ".join(filter(None, (said, in_words(setting)))))
                found[setting].append(self._compared(batch, setting, reference))
            reference.blocks.clear()
        for setting, parts in found.items():
            self.weights[setting] = _pooled([weights for weights, _ in parts])
            self.activations[setting] = _pooled([calls for _, calls in parts])
        if not self.reached:
            self.reached = _pooled_reached(references)

    def precision(self, name: str) -> Precision:
        """The probe's precision for one of ours."""
        return self.probe.mixed(DTYPES[name], float32=self.float32)

    def _reference(self, batch: Any, said: str) -> _Reference:
        self.say(" ".join(filter(None, (said, "float64, the reference"))))
        # Not to the host: its gradients are given to the passes that are compared with it.
        taken = self.probe.run_on_device(
            batch, reference_precision(self.probe), read=comparing.read_reference
        )
        check_reference(self.model, batch, taken)
        return _Reference(taken)

    def _compared(
        self, batch: Any, setting: Setting, reference: _Reference
    ) -> tuple[dict[str, Tally], dict[str, Tally]]:
        name = setting[0]
        precision = self.precision(name)
        taken = self._taken(batch, setting, reference, reference.weights)
        self._note_left_out(name, reference, taken)
        by_layer: dict[str, list[Tally]] = {}
        for key, vector in taken["weights"].items():
            path = path_in(key)
            computes_in = precision.computes_in.get(path, "float32")
            by_layer.setdefault(path, []).append(tally.of_weight(vector.numpy(), computes_in))
        calls: dict[str, list[Tally]] = {}
        for key, vector in taken["calls"].items():
            calls.setdefault(path_in(key), []).append(
                tally.of_call(vector.numpy(), reference.exponents[key], reference.squares[key])
            )
        return _each_pooled(by_layer), _each_pooled(calls)

    def _taken(
        self, batch: Any, setting: Setting, reference: _Reference, weights: Mapping[str, Any]
    ) -> dict[str, Any]:
        name, log2_scale = setting
        factors: dict[str, Any] = {
            key: comparing.factors_for(log2_scale or 0, exponent)
            for key, exponent in reference.exponents.items()
        }
        factors["weights"] = np.float64(2.0 ** -(log2_scale or 0))
        return self.probe.run_on_device(
            batch,
            self.precision(name),
            scale=2.0 ** (log2_scale or 0),
            read=comparing.read_compared,
            given=(weights, reference.blocks, factors),
            eager=self.is_eager,
        )

    def parts_of_error(self, best: int) -> list[float]:
        """Splits mixed_float16's error, by a pass that rounds on the way forward only.

        Args:
            best: log2 of the best scale.

        Returns:
            Squared L2 norms over all batches: of the reference's gradient, of its difference from
            that of the way forward alone, of that one's from the gradient at the best scale, and of
            that one's from the gradient at scale 1.
        """
        forward_only = dataclasses.replace(self.precision(HALF), only_forward=True)
        parts = np.zeros(4)
        for batch in self.batches:
            reference = self._reference(batch, "")
            self.say(f"{HALF}, the way forward only")
            forward = self.probe.run_on_device(batch, forward_only, read=comparing.read_weights)
            self.say(f"{in_words((HALF, best))}, beside the way forward")
            at_best = self._taken(batch, (HALF, best), reference, forward)
            unscaled = {
                key: tf.cast(gradient, tf.float64) * 2.0**-best
                for key, gradient in at_best["gradients"].items()
            }
            self.say(f"{in_words((HALF, 0))}, beside 2^{best}")
            at_one = self._taken(batch, (HALF, 0), reference, unscaled)
            parts += (
                sum(sums.squares(g) for g in reference.weights.values()),
                sum(
                    sums.squares(forward[key] - gradient)
                    for key, gradient in reference.weights.items()
                    if key in forward
                ),
                _squared_error(at_best),
                _squared_error(at_one),
            )
        return [float(part) for part in parts]

    def _note_left_out(self, name: str, reference: _Reference, taken: Mapping[str, Any]) -> None:
        lacking = sorted({path_in(key) for key in set(reference.blocks) - set(taken["calls"])})
        if lacking:
            limit = (
                f"Activation gradients of {_listed(lacking)} were not compared under {name}: the "
                "layer is called otherwise there than in float64."
            )
            if limit not in self.limits:
                self.limits.append(limit)


def reference_precision(probe: Probe) -> Precision:
    """float64 everywhere, and the weights' gradients in it too, not in their own dtype."""
    return dataclasses.replace(probe.everywhere("float64"), only_forward=True)


class _Reference:
    """A reference pass, kept for the passes that are compared with it."""

    def __init__(self, taken: dict[str, Any]) -> None:
        self.weights = taken["weights"]
        calls = taken["calls"]
        with_gradient = [key for key, call in calls.items() if "blocks" in call]
        self.exponents = {key: int(calls[key]["exponent"]) for key in with_gradient}
        self.squares = {key: float(calls[key]["squares"]) for key in with_gradient}
        self.blocks = {key: calls[key]["blocks"] for key in with_gradient}
        self.reached = _reached(taken, self.exponents, self.squares)


def _reached(
    taken: Mapping[str, Any],
    exponents: Mapping[str, int],
    squares: Mapping[str, float],
) -> dict[str, Reached]:
    outputs: dict[str, np.ndarray] = {}
    gradients: dict[str, np.ndarray] = {}
    by_exponent: dict[str, np.ndarray] = {}
    by_weight: dict[str, np.ndarray] = {}
    for key, call in taken["calls"].items():
        path = path_in(key)
        outputs[path] = outputs.get(path, 0) + np.asarray(call["outputs"][:2])
        if key in exponents:
            size = np.array([int(call["entries"]), np.ldexp(squares[key], 2 * exponents[key])])
            gradients[path] = gradients.get(path, 0) + size
            by_exponent[path] = by_exponent.get(path, 0) + np.asarray(call["exponents"])
    for key, counts in taken["weight_exponents"].items():
        path = path_in(key)
        by_weight[path] = by_weight.get(path, 0) + np.asarray(counts)
    nothing = np.zeros(2)
    return {
        path: Reached(
            outputs=tuple(outputs.get(path, nothing)),
            gradients=tuple(gradients.get(path, nothing)),
            activation_exponents=by_exponent.get(path),
            weight_exponents=by_weight.get(path),
        )
        for path in [*outputs, *(path for path in by_weight if path not in outputs)]
    }


def _pooled_reached(parts: Sequence[Mapping[str, Reached]]) -> dict[str, Reached]:
    def added(values: Iterable[Any]) -> Any:
        there = [np.asarray(value) for value in values if value is not None]
        return sum(there[1:], there[0]) if there else None

    paths = dict.fromkeys(path for part in parts for path in part)
    return {
        path: Reached(
            *map(added, zip(*(part[path] for part in parts if path in part), strict=True))
        )
        for path in paths
    }


def _each_pooled(tallies: Mapping[str, Sequence[Tally]]) -> dict[str, Tally]:
    found = {path: tally.pooled(each) for path, each in tallies.items()}
    return {path: each for path, each in found.items() if each is not None}


def _pooled(parts: Sequence[Mapping[str, Tally]]) -> dict[str, Tally]:
    paths = dict.fromkeys(path for part in parts for path in part)
    return _each_pooled({path: [part[path] for part in parts if path in part] for path in paths})


def _squared_error(taken: Mapping[str, Any]) -> float:
    place = sums.SUMS.index("squared_error")
    return sum(float(vector[place]) for vector in taken["weights"].values())


def in_words(setting: Setting) -> str:
    """A setting as one reads it."""
    name, log2_scale = setting
    return name if log2_scale is None else f"{name} at 2^{log2_scale}"


def _listed(paths: Sequence[str], limit: int = 3) -> str:
    more = len(paths) - limit
    return ", ".join(paths[:limit]) + (f" and {more} more" if more > 0 else "")
