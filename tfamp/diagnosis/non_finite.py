"""A step that is not finite in float64: no fault of a precision, and where it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfamp.diagnosis.comparing import path_in, read_outputs
from tfamp.diagnosis.probe import Precision, Probe
from tfamp.run.errors import InputError


class NonFiniteReference(InputError):
    """A loss or gradient is NaN or infinite in float64 already.

    Attributes:
        where: The path of the layer where it starts; `inputs`, `targets`, `sample weights`, the
            path of a variable, or `loss`.
    """

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.where = where


def check_reference(model: keras.Model, batch: Sequence[Any], taken: Mapping[str, Any]) -> None:
    """Refuses a step that no precision can save.

    Args:
        model: The model.
        batch: What the pass was taken on.
        taken: What `read_reference` returned.

    Raises:
        NonFiniteReference: The loss is not finite, or a gradient.
    """
    loss = float(taken["loss"])
    calls = taken["calls"]
    # The last that returned is the first on the way back.
    backwards = [key for key in reversed(taken["order"]) if _bad(calls[key].get("non_finite"))]
    weights = [key for key, g in taken["weights"].items() if not np.isfinite(g).all()]
    if np.isfinite(loss) and not backwards and not weights:
        return
    where, said = _start(model, batch, taken)
    if np.isfinite(loss) and where == "loss":
        where = path_in((backwards or weights)[0])
        raise NonFiniteReference(
            f"The gradient is NaN or infinite in float64 too, with a finite loss of {loss:g}: no "
            f"precision is at fault. On the way back it starts at {where!r}. Look for what has no "
            "finite derivative there, such as a root or a norm of zero.",
            where,
        )
    raise NonFiniteReference(
        f"The loss is {loss:g} in float64 too: no precision is at fault. It starts in {said}. "
        "Give data and weights that are finite, and a loss that is defined for them.",
        where,
    )


def _start(model: keras.Model, batch: Sequence[Any], taken: Mapping[str, Any]) -> tuple[str, str]:
    for name, part in zip(("inputs", "targets", "sample weights"), batch, strict=False):
        if any(_holds_non_finite(leaf) for leaf in keras.tree.flatten(part)):
            return name, f"the batch's {name}"
    for variable in model.variables:
        if _holds_non_finite(variable.value):
            return variable.path, f"the weight {variable.path!r}"
    for key in taken["order"]:
        if taken["calls"][key]["outputs"][2]:
            path = path_in(key)
            return path, f"the layer {path!r}, the first whose output is not finite"
    return "loss", "the loss itself: every layer's output is finite"


def first_non_finite_output(probe: Probe, batch: Sequence[Any], precision: Precision) -> str | None:
    """The path of the first layer whose output is not finite; None where all are, and the loss.

    `loss` where it is the loss alone.
    """
    taken = probe.run(batch, precision, read=read_outputs, eager=True)
    for key, count in taken["outputs"]:
        if count:
            return path_in(key)
    return None if np.isfinite(taken["loss"]) else "loss"


def _bad(count: Any) -> bool:
    return count is not None and bool(count)


def _holds_non_finite(leaf: Any) -> bool:
    # bfloat16 is no float to NumPy.
    values = np.asarray(keras.ops.convert_to_numpy(leaf)) if leaf is not None else np.zeros(0)
    if values.dtype.kind in "biuUSO" or not values.size:
        return False
    return not np.isfinite(values.astype(np.float64)).all()
