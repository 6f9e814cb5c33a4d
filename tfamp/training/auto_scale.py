"""`--loss_scale=auto`: a dynamic loss scale that starts where the first batch's gradients fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tfamp.run.result import AutoScale
from tfamp.training import build
from tfamp.training.build import BuiltRun

# Looks at a built run, which it leaves as it is, and says where its scale should start. Who trains
# has none of its own: a diagnosis stands above training.
Advise = Callable[[BuiltRun], AutoScale]


def choose(run: BuiltRun, advise: Advise | None, say: Callable[[str], None]) -> None:
    """Lets the run start at the advised scale, where it is to: as by `--initial_loss_scale`.

    What is advised is moved between floor and ceiling where it lies outside them.

    Args:
        run: The run, built and not begun.
        advise: Asked for a run with `--loss_scale=auto` only.
        say: Where lines for the user go.

    Raises:
        ValueError: There is nobody to ask.
        InputError: The adviser's.
    """
    if run.config.loss_scale != "auto":
        return
    if advise is None:
        raise ValueError(
            "loss_scale='auto' and no `advise`: somebody must say where the scale starts. Pass "
            "advise, as `python -m tfamp.train` does, or set initial_loss_scale."
        )
    say("Choosing the loss scale on the first batch, this takes a while ...")
    chosen = run.auto_scale = _between_bounds(run, advise(run))
    build.compile_anew(run, dataclasses.replace(run.config, initial_loss_scale=chosen.initial))


def in_words(auto: AutoScale) -> str:
    """What was chosen, in a sentence or two."""
    where = "" if auto.window is None else f", whose window of safe scales is {auto.window}"
    said = f"Loss scale {auto.initial:.9g} to start with, chosen on the first batch{where}."
    return said if auto.why is None else f"{said} {auto.why}"


def _between_bounds(run: BuiltRun, advised: AutoScale) -> AutoScale:
    low, high = run.config.min_loss_scale, run.config.max_loss_scale
    initial = min(max(advised.initial, low), high)
    if initial == advised.initial:
        return advised
    bound = "min_loss_scale" if initial == low else "max_loss_scale"
    moved = f"{advised.initial:.9g} was advised; --{bound}={initial:.9g} is in the way."
    why = moved if advised.why is None else f"{advised.why} {moved}"
    return dataclasses.replace(advised, initial=initial, why=why)
