"""From a config as it came to one that can be run: checked, and with nothing left open."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Any

from tfamp.run import catalogue
from tfamp.run.catalogue import OPTIMIZERS
from tfamp.run.config import FLOAT16_POLICIES, SCALE_SETTINGS, Config, declarations
from tfamp.run.errors import InputError, setting
from tfamp.run.scale_rules import why_not_together


def resolve(config: Config, given: Collection[str] = ()) -> Config:
    """Checks a config and fills in what the user left open.

    Args:
        config: The values as they came.
        given: The names that the user set himself; a float16 loss-scale flag that
            is set where nothing is scaled is an error, its default is not.

    Returns:
        A config with `optimizer`, `learning_rate`, `weight_decay` and `run_name` set, and with an
        `initial_loss_scale` between the bounds where it will be chosen.

    Raises:
        InputError: A value is not allowed, or two values contradict each other.
    """
    _check_each(config)
    optimizer = config.optimizer or catalogue.default_optimizer(config.model)
    _check_optimizer(optimizer, given)
    _check_loss_scale(config, given)
    _check_underflow(config, given)
    row = OPTIMIZERS[optimizer]
    filled = dataclasses.replace(
        config,
        optimizer=optimizer,
        learning_rate=_first(config.learning_rate, row.learning_rate),
        weight_decay=_first(config.weight_decay, row.weight_decay),
        run_name=_first(config.run_name, default_run_name(config)),
        initial_loss_scale=_initial_loss_scale(config),
    )
    # A name that was made of long others is too long as well.
    _check_each(filled)
    return filled


def default_run_name(config: Config) -> str:
    """Names a run after its model, dataset, policy, loop and seed."""
    parts = (config.model, config.dataset, config.policy, config.loop, f"seed{config.seed}")
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part).strip("_") for part in parts)


def shapes(name: str, loss_scale: str) -> bool:
    """Whether a setting of `SCALE_SETTINGS` says something of such a loss scale."""
    if loss_scale == "auto":
        return name != "initial_loss_scale"
    # A static scale has a bound on skips too.
    return loss_scale == "dynamic" or (name == "max_skipped_in_a_row" and loss_scale != "none")


def _initial_loss_scale(config: Config) -> float:
    if config.loss_scale != "auto":
        return config.initial_loss_scale
    # What is chosen will lie between the bounds; until then the default must, which nobody gave.
    return min(max(config.initial_loss_scale, config.min_loss_scale), config.max_loss_scale)


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_each(config: Config) -> None:
    for name, declared in declarations(config).items():
        value = getattr(config, name)
        # None is what is left open where it is the default.
        if value is not None or getattr(type(config), name) is not None:
            declared.kind.check(name, value)


def _check_optimizer(optimizer: str, given: Collection[str]) -> None:
    for other, row in OPTIMIZERS.items():
        foreign = [name for name in row.settings if name in given and other != optimizer]
        if foreign:
            raise InputError(
                f"{setting(foreign[0])} was set, but {setting('optimizer', optimizer)} has none. "
                f"Leave {setting(foreign[0])} out."
            )


def _check_underflow(config: Config, given: Collection[str]) -> None:
    every = setting("underflow_every", config.underflow_every)
    if config.underflow_every is None:
        if "underflow_of" in given:
            raise InputError(
                f"{setting('underflow_of', config.underflow_of)} without "
                f"{setting('underflow_every')}: nothing is measured. Set "
                f"{setting('underflow_every', 100)}, or leave {setting('underflow_of')} out."
            )
    elif config.policy not in FLOAT16_POLICIES and not config.is_user_model:
        raise InputError(
            f"{every} with {setting('policy', config.policy)}: only float16 loses gradients that a "
            f"loss scale saves. Set {setting('policy')} to one of {', '.join(FLOAT16_POLICIES)}, "
            f"or leave {setting('underflow_every')} out."
        )


def _check_loss_scale(config: Config, given: Collection[str]) -> None:
    policy, loss_scale = setting("policy", config.policy), setting("loss_scale", config.loss_scale)
    shaping = [name for name in SCALE_SETTINGS if name in given]
    has_float16 = config.policy in FLOAT16_POLICIES or config.is_user_model
    if not has_float16 and (shaping or config.loss_scale not in ("dynamic", "none")):
        idle = setting(shaping[0]) if shaping else setting("loss_scale")
        raise InputError(
            f"{idle if shaping else loss_scale} with {policy}: only float16 needs a loss scale. "
            f"Set {setting('policy')} to one of {', '.join(FLOAT16_POLICIES)}, or leave {idle} out."
        )
    for came in (setting(name) for name in shaping if not shapes(name, config.loss_scale)):
        why = "auto chooses it" if config.loss_scale == "auto" else "it has no effect there"
        raise InputError(
            f"{came} with {loss_scale}: {why}. Set "
            f"{setting('loss_scale', 'dynamic')}, or leave {came} out."
        )
    names = {rule: name for name, rule in SCALE_SETTINGS.items()}
    rules = {rule: getattr(config, name) for rule, name in names.items()}
    rules["initial_scale"] = _initial_loss_scale(config)
    contradiction = why_not_together(rules, lambda rule, value: setting(names[rule], value))
    if config.has_moving_scale and contradiction:
        raise InputError(contradiction)
