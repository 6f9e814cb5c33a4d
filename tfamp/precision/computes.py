"""What of a model really computes in 16 bits, whatever its policies are called."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import keras

from tfamp.precision.policy import all_layers, own_variables, path_of
from tfamp.run.result import ComputesIn
from tfamp.run.run_config import Float32Effect

_SIXTEEN_BITS = ("float16", "bfloat16")
# Under a mixed policy these cast to float32, compute, and cast what comes out.
_FLOAT32_INSIDE = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def computes_in(model: keras.Model) -> ComputesIn:
    """Counts the layers with trainable weights of their own by what they compute in.

    A container counts by its parts. Normalisation layers compute in float32 inside whatever
    their policy is.

    Args:
        model: A built model.
    """
    sizes = {layer: _own_parameters(layer) for layer in all_layers(model)}
    holding = [layer for layer, size in sizes.items() if size]
    sixteen = [layer for layer in holding if is_16_bit(layer)]
    return ComputesIn(
        dtype="+".join(sorted({layer.compute_dtype for layer in sixteen})) or "float32",
        layers=len(sixteen),
        of_layers=len(holding),
        parameters=sum(sizes[layer] for layer in sixteen),
        of_parameters=sum(sizes.values()),
    )


def in_words(counted: ComputesIn, policy: str) -> str:
    """A line for the user, of what `computes_in` counted under the policy that was asked for."""
    asked = policy.removeprefix("mixed_")
    if not counted.layers:
        said = f"All {counted.of_layers} layers with weights compute in float32."
        if asked == "float32":
            return said
        return f"The policy is {policy}, but no layer with weights computes in {asked}. {said}"
    share = 100 * counted.parameters / counted.of_parameters
    return (
        f"{counted.layers} of {counted.of_layers} layers with weights compute in "
        f"{counted.dtype}, with {share:.1f} % of the parameters; the others in float32."
    )


def is_16_bit(layer: keras.layers.Layer) -> bool:
    """Whether a layer really computes in 16 bits."""
    return layer.compute_dtype in _SIXTEEN_BITS and not isinstance(layer, _FLOAT32_INSIDE)


def float32_effects(model: keras.Model, patterns: Sequence[str]) -> dict[str, Float32Effect]:
    """What `force_float32` would change, asked before it does.

    Args:
        model: A built model.
        patterns: As for `force_float32`.

    Returns:
        Each pattern's effect.
    """
    effects: dict[str, Float32Effect] = {}
    for pattern in patterns:
        matched = [layer for layer in all_layers(model) if re.search(pattern, path_of(layer))]
        effects[pattern] = Float32Effect(
            changed=tuple(path_of(layer) for layer in matched if is_16_bit(layer)),
            float32_anyway=tuple(path_of(layer) for layer in matched if not is_16_bit(layer)),
        )
    return effects


def effect_in_words(pattern: str, effect: Float32Effect) -> str:
    """A line for the user, of one pattern's effect."""
    changed, anyway = effect.changed, effect.float32_anyway
    said = f"Of float32_layers {pattern!r}: "
    said += f"moved to float32: {', '.join(changed)}" if changed else "changes nothing"
    if anyway:
        said += f"; in float32 anyway: {', '.join(anyway)}"
    return said


def trainable_parameters(model: keras.Model) -> int:
    """How many numbers of a model are trained."""
    return _size(model.trainable_variables)


def _own_parameters(layer: keras.layers.Layer) -> int:
    return _size([variable for variable in own_variables(layer) if variable.trainable])


def _size(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
