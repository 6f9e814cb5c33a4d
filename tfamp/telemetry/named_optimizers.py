"""Which optimizers train a model, and what they are called in rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras


def named_optimizers(
    model: keras.Model | None,
    given: keras.optimizers.Optimizer
    | Iterable[keras.optimizers.Optimizer]
    | Mapping[str, keras.optimizers.Optimizer]
    | None,
) -> dict[str, keras.optimizers.Optimizer]:
    """Names the optimizers of a run.

    Args:
        model: The model, if it is known.
        given: The user's choice: one optimizer, several, or a dict by name. None looks at the
            model: its own optimizer, and those that it holds as attributes, as a GAN does.

    Returns:
        One alone under the name "", whose figures need no name; several under the user's names,
        those of the model's attributes, or their own.

    Raises:
        ValueError: There is something else than an optimizer.
    """
    held = _attributes(model)
    if given is None:
        own = getattr(model, "optimizer", None)
        chosen = held if own is None or own in held.values() else {"optimizer": own} | held
        return chosen if len(chosen) > 1 else dict(zip([""], chosen.values(), strict=False))
    if isinstance(given, keras.optimizers.Optimizer):
        return {"": given}
    if isinstance(given, Mapping):
        for name, optimizer in given.items():
            _check(optimizer, f"optimizers[{name!r}]")
        return {str(name): optimizer for name, optimizer in given.items()}
    listed = list(given)
    for i, optimizer in enumerate(listed):
        _check(optimizer, f"optimizers[{i}]")
    if len(listed) == 1:
        return {"": listed[0]}
    names = {id(optimizer): name for name, optimizer in held.items()}
    named: dict[str, keras.optimizers.Optimizer] = {}
    for optimizer in listed:
        name = plain = names.get(id(optimizer), optimizer.name)
        for count in range(2, len(listed) + 1):
            if name not in named:
                break
            name = f"{plain}_{count}"
        named[name] = optimizer
    return named


def _attributes(model: keras.Model | None) -> dict[str, keras.optimizers.Optimizer]:
    # `optimizer` is what `compile` sets; a GAN's own have names that say more.
    held: dict[str, keras.optimizers.Optimizer] = {}
    for name, value in vars(model).items() if model is not None else ():
        is_optimizer = isinstance(value, keras.optimizers.Optimizer)
        if is_optimizer and name != "optimizer" and value not in held.values():
            held[name] = value
    return held


def _check(optimizer: Any, where: str) -> None:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            f"{where} is {optimizer!r}: it must be a Keras optimizer, such as "
            "tfamp.LossScaleOptimizer(keras.optimizers.Adam())."
        )
