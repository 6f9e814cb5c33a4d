"""The config of a training step that is looked at and not trained on: of what it is made.

A command that looks at a step takes the trainer's flags that have a bearing on it, refuses the
others, and takes from an earlier run what that run had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfamp.run.command import Option
from tfamp.run.config import SCALE_SETTINGS, Config, Role, declarations, names_of
from tfamp.run.errors import InputError, as_flag, setting, told
from tfamp.run.past_run import PastRun
from tfamp.run.resolve import resolve

# Under a mixed one the layers that are forced to float32 are known, and gradients arrive in float32
# variables: those of 16 bits could not hold a reference.
_MIXED = {
    "float32": "mixed_float16",
    "float16": "mixed_float16",
    "bfloat16": "mixed_bfloat16",
}
# What the weights of a run are of, and were trained on.
_OF_THE_WEIGHTS = {
    "model": "its weights are of that one",
    "dataset": "its weights were trained on that one",
    "image_size": "its weights were trained on images of that size",
    "num_classes": "its weights tell so many apart",
    "num_examples": "its weights were trained on so many",
}


def names() -> list[str]:
    """The trainer's settings that such a command takes: those of the step, less the policy."""
    return [name for name, each in declarations().items() if each.in_step and name != "policy"]


def options() -> dict[str, Option]:
    """Its flags, by name."""
    found = {
        name: Option(getattr(Config, name), declarations()[name].kind, declarations()[name].help)
        for name in names()
    }
    text = (
        "Compile with XLA, which may keep more than 16 bits between two operations: what is seen "
        "then is what such a run does, not what the precision does."
    )
    return found | {"jit_compile": Option(False, found["jit_compile"].kind, text)}


def refused(instead: Mapping[str, str]) -> dict[str, str]:
    """The trainer's other flags, each with the reason.

    Args:
        instead: The command's own flags, without dashes, in place of `policy`, `loss_scale` and
            `logdir`.
    """
    places, scales = names_of(Role.PLACE), ("loss_scale", *SCALE_SETTINGS)
    found = {}
    for name in declarations():
        if name == "policy":
            why = f"the model is built under a mixed policy. Set --{instead['policy']}."
        elif name in scales:
            why = f"each of several scales is tried. Set --{instead['loss_scale']}."
        elif name in places:
            why = f"no run is made. Set --{instead['logdir']}."
        elif name not in names():
            why = "a step is looked at and nothing is trained. Leave it out."
        else:
            continue
        found[name] = why
    return found


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What a step is made of.

    Attributes:
        config: The config, resolved, under a mixed policy.
        said: What differs from what one might think, in sentences.
    """

    config: Config
    said: tuple[str, ...]


def make(asked: Mapping[str, Any], past: PastRun | None) -> StepConfig:
    """Makes the config of what the user asked for, and of a run where he named one.

    Args:
        asked: The settings that he gave.
        past: The run.

    Raises:
        InputError: He asked for what the run cannot have, or what is not allowed.
    """
    values = {name: value for name, value in asked.items() if name in names()}
    policy = "float32" if past is None else past.config.policy
    mixed = _MIXED.get(policy, policy)
    said = []
    if past is None:
        said.append(f"The model is built under {mixed}, with the weights that it begins with.")
    else:
        said += _against(values, past)
        values = (
            {name: getattr(past.config, name) for name in names()} | {"jit_compile": False} | values
        )
        if mixed != policy:
            said.append(f"The run trained under {policy}; the model is built under {mixed}.")
        if past.config.jit_compile and not values["jit_compile"]:
            said.append("The run was compiled with XLA; this is not, unless --jit_compile is set.")
    values.setdefault("jit_compile", False)
    return StepConfig(resolve(Config(**values, policy=mixed), list(asked)), tuple(said))


def _against(asked: Mapping[str, Any], past: PastRun) -> list[str]:
    """What of the run is set aside.

    Raises:
        InputError: It cannot be.
    """
    said = []
    for name, value in asked.items():
        known = getattr(past.config, name)
        if value == known or name == "jit_compile":
            continue
        if name in _OF_THE_WEIGHTS:
            raise InputError(
                f"{setting(name, value)} beside {setting('run', str(past.path))}, which trained "
                f"with {setting(name, known)}: {_OF_THE_WEIGHTS[name]}. Leave {setting(name)} out, "
                f"or {setting('run')}."
            )
        text = f"{setting(name, value)} instead of the run's {setting(name, known)}."
        said.append(told(text, as_flag))
    return said
