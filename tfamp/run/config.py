"""One frozen `Config` describes a run; every rule about its values is here.

Nothing below the command line takes a flag: the flags become a `Config`, and what a
part needs it is given as values.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from typing import Any

from tfamp.run import dataset_name
from tfamp.run.belongings import BEST_WEIGHTS, FINAL_WEIGHTS, MODEL
from tfamp.run.errors import InputError, setting, unknown_name
from tfamp.run.ranges import Range, whole
from tfamp.run.scale_rules import LOSS_SCALE, RANGES

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
FLOAT16_POLICIES = ("mixed_float16", "float16")
LOOPS = ("fit", "custom")
OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("constant", "cosine")
AUGMENTATIONS = ("none", "flip_crop", "randaugment", "mixup_cutmix")
LOSS_SCALE_MODES = ("dynamic", "none")

# Where a run lies, and what it keeps, says nothing of what it computed.
KEEPING_FLAGS = ("logdir", "run_name", "overwrite", "save_model", "save_best")

# The flags that shape a dynamic float16 loss scale and mean nothing elsewhere, and their rules.
SCALE_RULES = {
    "initial_loss_scale": "initial_scale",
    "loss_scale_growth_steps": "dynamic_growth_steps",
    "loss_scale_growth_factor": "growth_factor",
    "loss_scale_backoff_factor": "backoff_factor",
    "min_loss_scale": "min_scale",
    "max_loss_scale": "max_scale",
    "loss_scale_recovery_steps": "recovery_steps",
    "max_skipped_in_a_row": "max_skipped_in_a_row",
}
DYNAMIC_SCALE_FLAGS = tuple(SCALE_RULES)

# Linux's NAME_MAX, in bytes.
LONGEST_RUN_NAME = 255

# Learning rate and decoupled weight decay where the user gives none. SGD: He et al. 2016
# (arXiv 1512.03385, section 4.2). AdamW: Touvron et al. 2021 (arXiv 2012.12877, table 9).
_DEFAULT_LEARNING_RATE = {"sgd": 0.1, "adamw": 1e-3}
_DEFAULT_WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run does; the flags' names, resolved values.

    A value that the user may leave to tfamp is None until `resolve` fills it in:
    `optimizer` (adamw for ViTs, sgd elsewhere), `learning_rate`, `weight_decay`,
    `run_name`. `jit_compile` None is decided when the devices are known.
    """

    policy: str = "float32"
    tf32: bool = True
    float32_layers: tuple[str, ...] = ()
    model: str = "resnet20"
    dataset: str = "fashion_mnist_mini"
    data_dir: str | None = None
    image_size: int | None = None
    num_classes: int | None = None
    num_examples: int | None = None
    augment: str = "none"
    loop: str = "fit"
    epochs: int = 5
    steps_per_epoch: int | None = None
    batch_size: int = 64
    seed: int = 0
    deterministic: bool = False
    optimizer: str | None = None
    learning_rate: float | None = None
    lr_schedule: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float | None = None
    momentum: float = 0.9
    label_smoothing: float = 0.0
    clip_global_norm: float | None = None
    ema_momentum: float | None = None
    accumulation_steps: int = 1
    loss_scale: str = "dynamic"
    initial_loss_scale: float = 2.0**15
    loss_scale_growth_steps: int = 2000
    loss_scale_growth_factor: float = 2.0
    loss_scale_backoff_factor: float = 0.5
    min_loss_scale: float = 2.0**-14
    max_loss_scale: float = 2.0**24
    loss_scale_recovery_steps: int | None = 20
    max_skipped_in_a_row: int | None = 200
    stop_on_non_finite: bool = True
    jit_compile: bool | None = None
    steps_per_execution: int = 1
    profile_steps: tuple[int, int] | None = None
    logdir: str = "runs"
    run_name: str | None = None
    log_every: int = 10
    overwrite: bool = False
    save_model: bool = True
    save_best: bool = False

    @property
    def static_loss_scale(self) -> float | None:
        """The fixed loss scale, or None where it is dynamic or off."""
        return None if self.loss_scale in LOSS_SCALE_MODES else float(self.loss_scale)

    @property
    def scale_settings(self) -> tuple[str, ...]:
        """Names of the loss-scale flags that differ from their defaults, bar `none`."""
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        names = ("loss_scale", *DYNAMIC_SCALE_FLAGS)
        return tuple(n for n in names if getattr(self, n) not in (fields[n], "none"))

    @property
    def is_user_model(self) -> bool:
        """Whether the model comes from a file of the user's, `path/to/file.py:function`."""
        return ":" in self.model

    @property
    def saved_names(self) -> tuple[str, ...]:
        """Names of the weights and the model that the run may write in its folder."""
        last = (FINAL_WEIGHTS, MODEL) if self.save_model else ()
        return last + ((BEST_WEIGHTS,) if self.save_best else ())

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types, for config.json."""
        return dataclasses.asdict(self)


def resolve(config: Config, given: frozenset[str] = frozenset()) -> Config:
    """Checks a config and fills in what the user left open.

    Args:
        config: The values as they came.
        given: The names that the user set himself; a float16 loss-scale flag that
            is set where nothing is scaled is an error, its default is not.

    Returns:
        A config with `optimizer`, `learning_rate`, `weight_decay` and `run_name` set.

    Raises:
        InputError: A value is not allowed, or two values contradict each other.
    """
    _check_choices(config)
    _check_ranges(config)
    _check_loss_scale(config, given)
    optimizer = config.optimizer or ("adamw" if config.model.startswith("vit_") else "sgd")
    if optimizer == "adamw" and "momentum" in given:
        raise InputError(
            f"{setting('momentum')} was set, but {setting('optimizer', 'adamw')} has none. Leave "
            f"{setting('momentum')} out."
        )
    return dataclasses.replace(
        config,
        optimizer=optimizer,
        learning_rate=_first(config.learning_rate, _DEFAULT_LEARNING_RATE[optimizer]),
        weight_decay=_first(config.weight_decay, _DEFAULT_WEIGHT_DECAY[optimizer]),
        run_name=config.run_name or default_run_name(config),
    )


def default_run_name(config: Config) -> str:
    """Names a run after its model, dataset, policy, loop and seed."""
    parts = (config.model, config.dataset, config.policy, config.loop, f"seed{config.seed}")
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part).strip("_") for part in parts)


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_choices(config: Config) -> None:
    choices = (
        ("policy", "policy", POLICIES),
        ("loop", "loop", LOOPS),
        ("augment", "augmentation", AUGMENTATIONS),
        ("lr_schedule", "learning-rate schedule", LR_SCHEDULES),
    )
    for field, kind, allowed in choices:
        if getattr(config, field) not in allowed:
            raise unknown_name(kind, getattr(config, field), allowed, field)
    dataset_name.check(config.dataset)
    if config.optimizer is not None and config.optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", config.optimizer, OPTIMIZERS, "optimizer")


_RANGES = {
    "image_size": whole(1),
    "num_classes": whole(2, 1_000_000),  # The synthetic set draws 588 bytes for each.
    "num_examples": whole(1),
    "epochs": whole(1),
    "steps_per_epoch": whole(1),
    "batch_size": whole(1),
    "accumulation_steps": whole(1),
    "steps_per_execution": whole(1),
    # The device keeps a record of so many steps, of 40 bytes or a little more each.
    "log_every": whole(1, 1_000_000),
    "warmup_steps": whole(0),
    "seed": whole(0, 2**32 - 1),  # NumPy takes no larger one.
    "learning_rate": Range(above=0.0),
    "weight_decay": Range(least=0.0),
    "momentum": Range(least=0.0, below=1.0),
    "label_smoothing": Range(least=0.0, below=1.0),
    "clip_global_norm": Range(above=0.0),
    "ema_momentum": Range(least=0.0, below=1.0),
} | {name: RANGES[rule] for name, rule in SCALE_RULES.items()}


def _check_ranges(config: Config) -> None:
    for name, allowed in _RANGES.items():
        value = getattr(config, name)
        is_open = value is None and getattr(Config, name) is None
        why_not = None if is_open else allowed.why_not(value)
        if why_not:
            raise InputError(f"{setting(name, value)}: {why_not}")
    _check_place(config)
    if config.profile_steps is not None:
        first, last = config.profile_steps
        if not 1 <= first <= last:
            raise InputError(
                f"{setting('profile_steps', (first, last))}: give the first and the last step to "
                f"trace, counted from 1, such as {setting('profile_steps', (20, 25))}."
            )
    for pattern in config.float32_layers:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(
                f"{setting('float32_layers')}: {pattern!r} is no regular expression ({error})."
            ) from error


def _check_place(config: Config) -> None:
    logdir = setting("logdir", config.logdir)
    if not config.logdir.strip() or "\0" in config.logdir:
        raise InputError(f"{logdir}: give a folder, such as {setting('logdir', 'runs')}.")
    if config.logdir.startswith("~") and os.path.expanduser(config.logdir) == config.logdir:
        raise InputError(
            f"{logdir}: there is no such user's home. Set {setting('logdir')} to a folder "
            "that is there or can be made; one whose name begins with ~ as ./~name."
        )
    name = default_run_name(config) if config.run_name is None else config.run_name
    run_name = setting("run_name", name)
    if name in (".", "..") or "/" in name or "\0" in name or not name.strip():
        raise InputError(f"{run_name}: give one folder name without '/'.")
    if len(os.fsencode(name)) > LONGEST_RUN_NAME:
        raise InputError(
            f"{run_name}: a folder's name takes {LONGEST_RUN_NAME} bytes at most. Set a shorter "
            f"{setting('run_name')}."
        )


def _check_loss_scale(config: Config, given: frozenset[str]) -> None:
    loss_scale = setting("loss_scale", config.loss_scale)
    if config.loss_scale not in LOSS_SCALE_MODES:
        try:
            scale = float(config.loss_scale)
        except ValueError:
            scale = math.nan
        why_not = LOSS_SCALE.why_not(scale)
        if why_not:
            raise InputError(
                f"{loss_scale}: it takes 'dynamic', 'none' or a number, such as "
                f"{setting('loss_scale', '1024')}; a number must be {LOSS_SCALE}."
            )
    policy = setting("policy", config.policy)
    float16 = config.policy in FLOAT16_POLICIES or config.is_user_model
    shaping = [name for name in DYNAMIC_SCALE_FLAGS if name in given]
    idle = shaping[0] if shaping else "loss_scale"
    if not float16 and (shaping or config.static_loss_scale is not None):
        came = setting(idle) if shaping else loss_scale
        raise InputError(
            f"{came} with {policy}: only float16 needs a loss scale. Set {setting('policy')} to "
            f"one of {', '.join(FLOAT16_POLICIES)}, or leave {setting(idle)} out."
        )
    dynamic_only = [name for name in shaping if name != "max_skipped_in_a_row"]
    if config.loss_scale != "dynamic" and dynamic_only:
        came = setting(dynamic_only[0])
        raise InputError(
            f"{came} with {loss_scale}: it shapes a dynamic scale only. Set "
            f"{setting('loss_scale', 'dynamic')}, or leave {came} out."
        )
    if config.loss_scale == "none" and "max_skipped_in_a_row" in given:
        raise InputError(
            f"{setting('max_skipped_in_a_row')} with {loss_scale}: nothing is skipped there. "
            "Leave one of the two out."
        )
    low, start, high = config.min_loss_scale, config.initial_loss_scale, config.max_loss_scale
    if config.loss_scale == "dynamic" and not low <= start <= high:
        raise InputError(
            f"{setting('initial_loss_scale', start)} lies outside "
            f"[{setting('min_loss_scale', low)}, {setting('max_loss_scale', high)}]. Move one of "
            "the three."
        )
