"""The optimizer that tfamp's wrap."""

from __future__ import annotations

from typing import Any

import keras


def inner_optimizer_of(given: Any) -> keras.optimizers.Optimizer:
    """What `compile` would make of a name or a config; an optimizer as it is.

    Raises:
        ValueError: It is none, or one that wraps another already.
    """
    try:
        optimizer = keras.optimizers.get(given)
    except ValueError as error:
        raise _no_optimizer(given) from error
    if optimizer is None:
        raise _no_optimizer(given)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            f"inner_optimizer is a {type(optimizer).__name__} already: the loss would be scaled "
            "twice. Pass its own inner_optimizer."
        )
    return optimizer


def _no_optimizer(given: Any) -> ValueError:
    return ValueError(
        f"inner_optimizer={given!r}: it must be a keras.optimizers.Optimizer or the name of one. "
        "Pass keras.optimizers.Adam(1e-3), for example, or 'adam'."
    )
