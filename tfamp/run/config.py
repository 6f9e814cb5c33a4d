"""One frozen `Config` describes a run; each of its settings is declared here, once.

A declaration has the default, what the setting is for (`Role`), the kind of its values and what it
does, in words. The flags and their help, the checks, what a report pairs runs by and what a sweep
compares finished cells by are read from it. What two settings may not be together is in
`resolve.py`. Nothing below the command line takes a flag: each part is given values.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Literal

from tfamp.run import catalogue, kinds
from tfamp.run.catalogue import DATASETS, MODELS, OPTIMIZERS, USER_MODEL, USUAL_OPTIMIZER
from tfamp.run.errors import InputError, setting
from tfamp.run.kinds import Choice, Kind, Number, Switch, Text
from tfamp.run.ranges import Range, whole
from tfamp.run.result import BEST_WEIGHTS, FINAL_WEIGHTS, MODEL
from tfamp.run.scale_rules import LOSS_SCALE, RANGES, ScaleRules

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
FLOAT16_POLICIES = ("mixed_float16", "float16")
LOOPS = ("fit", "custom")
LR_SCHEDULES = ("constant", "cosine")
AUGMENTATIONS = ("none", "flip_crop", "randaugment", "mixup_cutmix")
# `auto` is dynamic from a scale that is chosen on the first batch.
LOSS_SCALE_MODES = ("dynamic", "auto", "none")
# What the underflow meter looks at.
UNDERFLOW_OF = ("weights", "activations")


class Role(enum.Enum):
    """What a setting is for, to whoever compares runs."""

    # In which precision a run computes: what a report compares.
    PRECISION = enum.auto()
    # What else it computes, and how: what runs share that are compared.
    IDENTITY = enum.auto()
    # What tells repetitions of one experiment apart.
    REPETITION = enum.auto()
    # Where a run lies and what it keeps, which says nothing of what it computed.
    PLACE = enum.auto()


@dataclasses.dataclass(frozen=True)
class Declared:
    """What is declared of a setting, beside its name and its default.

    Attributes:
        role: What it is for.
        kind: The kind of its values.
        help: What it does, for `--help`.
        scale_rule: The rule of a loss scale that it is.
        axis: The sweep's option that takes several values of it.
        hparam: Whether TensorBoard's HParams tab compares runs by it: "shown" at once, or "listed"
            until its box is ticked.
        in_step: Whether the gradient of the loss in one step from given weights depends on it.
    """

    role: Role
    kind: Kind
    help: str
    scale_rule: str | None = None
    axis: str | None = None
    hparam: Literal["shown", "listed"] | None = None
    in_step: bool = False


def declared(default: Any, role: Role, kind: Kind, text: str, **more: Any) -> Any:
    """A field of a `Config`; see `Declared`."""
    return dataclasses.field(
        default=default, metadata={"declared": Declared(role, kind, text, **more)}
    )


def _scale(rule: str, text: str) -> Any:
    """A rule of the loss scale, of which default and range are declared with the others."""
    kind = Number(RANGES[rule])
    return declared(getattr(ScaleRules, rule), Role.PRECISION, kind, text, scale_rule=rule)


def _check_loss_scale(name: str, value: str) -> None:
    if value in LOSS_SCALE_MODES:
        return
    try:
        is_scale = LOSS_SCALE.why_not(float(value)) is None
    except ValueError:
        is_scale = False
    if not is_scale:
        raise InputError(
            f"{setting(name, value)}: it takes 'dynamic', 'auto', 'none' or a number, such as "
            f"{setting(name, '1024')}; a number must be {LOSS_SCALE}."
        )


def _by_optimizer(value: str) -> str:
    rows = OPTIMIZERS.items()
    return ", ".join(f"{getattr(row, value):g} for {name}" for name, row in rows)


def _by_model() -> str:
    models = {
        optimizer: [name for name, row in MODELS.items() if row.optimizer == optimizer]
        for optimizer in OPTIMIZERS
        if optimizer != USUAL_OPTIMIZER
    }
    parts = [f"{optimizer} for {', '.join(names)}" for optimizer, names in models.items()]
    return "; ".join([*parts, f"{USUAL_OPTIMIZER} elsewhere"])


PRECISION, IDENTITY, REPETITION, PLACE = Role
_COUNT = Number(whole(1))
_SHARE = Number(Range(least=0.0, below=1.0))
_POSITIVE = Number(Range(above=0.0))


# The text of a flag is its help: what it does, then what is done where it is not given.
# fmt: off
@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run does; the flags' names, resolved values.

    A value that the user may leave to tfamp is None until `resolve` fills it in: `optimizer`,
    `learning_rate`, `weight_decay`, `run_name`. `jit_compile` and `steps_per_epoch` None are
    decided when the devices and the data are known.
    """

    policy: str = declared("float32", PRECISION, Choice("policy", POLICIES),
        "Precision policy. float16 and bfloat16 keep the variables in 16 bits too, to show why "
        "master weights matter.", axis="policies", hparam="shown", in_step=True)
    tf32: bool = declared(True, PRECISION, Switch(),
        "Let float32 matrix products run in TF32 on NVIDIA Ampere and later.", in_step=True)
    float32_layers: tuple[str, ...] = declared((), PRECISION, kinds.Patterns(),
        "Regular expressions; layers whose path holds a match compute in float32.", in_step=True)
    model: str = declared("resnet20", IDENTITY, Text(catalogue.check_model),
        f"{', '.join(MODELS)}, or {USER_MODEL}, where function(input_shape, num_classes) returns "
        "a keras.Model.", axis="models", hparam="shown", in_step=True)
    dataset: str = declared("fashion_mnist_mini", IDENTITY, Text(catalogue.check_dataset),
        f"{', '.join(f'{name} ({row.about})' for name, row in DATASETS.items())}, or an image "
        "classification set of TFDS by name.", axis="datasets", hparam="listed", in_step=True)
    data_dir: str | None = declared(None, IDENTITY, Kind(),
        "Where TFDS keeps its prepared sets. Default: TFDS's own.", in_step=True)
    image_size: int | None = declared(None, IDENTITY, Number(whole(8)),
        "Resize images to this many pixels a side. Default: the set's own.", in_step=True)
    # The synthetic set draws 588 bytes for each class.
    num_classes: int | None = declared(None, IDENTITY, Number(whole(2, 1_000_000)),
        "Classes of --dataset=synthetic.", in_step=True)
    num_examples: int | None = declared(None, IDENTITY, _COUNT,
        "Training examples of --dataset=synthetic.", in_step=True)
    augment: str = declared("none", IDENTITY, Choice("augmentation", AUGMENTATIONS),
        "Augmentation, in the input pipeline, in float32.", in_step=True)
    loop: str = declared("fit", IDENTITY, Choice("loop", LOOPS),
        "model.fit, or tfamp's tf.function over a GradientTape.", axis="loops", hparam="listed")
    epochs: int = declared(5, IDENTITY, _COUNT, "Epochs to train.")
    steps_per_epoch: int | None = declared(None, IDENTITY, _COUNT,
        "Steps an epoch. Default: the whole training set once.")
    batch_size: int = declared(64, IDENTITY, _COUNT, "Examples a step.", hparam="shown",
        in_step=True)
    # NumPy takes no larger seed.
    seed: int = declared(0, REPETITION, Number(whole(0, 2**32 - 1)),
        "Seed of weights, order and augmentation.", axis="seeds", hparam="listed", in_step=True)
    deterministic: bool = declared(False, IDENTITY, Switch(),
        "Use deterministic kernels: the same run twice gives the same bits.", in_step=True)
    optimizer: str | None = declared(None, IDENTITY, Choice("optimizer", tuple(OPTIMIZERS)),
        f"The update rule. Default: {_by_model()}.")
    learning_rate: float | None = declared(None, IDENTITY, _POSITIVE,
        f"Peak learning rate. Default: {_by_optimizer('learning_rate')}.", hparam="shown")
    lr_schedule: str = declared("cosine", IDENTITY,
        Choice("learning-rate schedule", LR_SCHEDULES), "Cosine decays to 0 at the last step.")
    warmup_steps: int = declared(0, IDENTITY, Number(whole(0)),
        "Optimizer updates of linear warm-up from 0.")
    weight_decay: float | None = declared(None, IDENTITY, Number(Range(least=0.0)),
        f"Decoupled weight decay. Default: {_by_optimizer('weight_decay')}.")
    momentum: float = declared(0.9, IDENTITY, _SHARE, "Momentum of sgd.")
    label_smoothing: float = declared(0.0, IDENTITY, _SHARE,
        "Share of each label spread over all classes.", in_step=True)
    clip_global_norm: float | None = declared(None, IDENTITY, _POSITIVE,
        "Clip the unscaled gradient to this global norm.")
    ema_momentum: float | None = declared(None, IDENTITY, _SHARE,
        "Average the weights with this momentum and evaluate the average.")
    accumulation_steps: int = declared(1, IDENTITY, _COUNT,
        "Batches whose gradients are averaged into one update.")
    loss_scale: str = declared("dynamic", PRECISION, Text(_check_loss_scale),
        "dynamic; auto, which is dynamic from a scale that is chosen on the first batch; none; or "
        "a number, a static scale.", axis="loss_scales", hparam="shown")
    initial_loss_scale: float = _scale("initial_scale", "Where a dynamic loss scale starts.")
    loss_scale_growth_steps: int = _scale("dynamic_growth_steps",
        "Clean steps before a dynamic loss scale grows.")
    loss_scale_growth_factor: float = _scale("growth_factor",
        "What a dynamic scale is multiplied by when it grows.")
    loss_scale_backoff_factor: float = _scale("backoff_factor",
        "What a dynamic scale is multiplied by on a non-finite gradient.")
    min_loss_scale: float = _scale("min_scale", "Floor of a dynamic loss scale.")
    max_loss_scale: float = _scale("max_scale", "Ceiling of a dynamic loss scale.")
    loss_scale_recovery_steps: int | None = _scale("recovery_steps",
        "After 8 overflows in a row, clean steps before a dynamic loss scale grows until it is "
        "back; none is torch's rule, which waits --loss_scale_growth_steps each time.")
    max_skipped_in_a_row: int | None = _scale("max_skipped_in_a_row",
        "Stop the run after more skipped steps in a row than this; none is no limit.")
    stop_on_non_finite: bool = declared(True, REPETITION, Switch(),
        "Stop the run at more than max_skipped_in_a_row skipped steps in a row, where the loss "
        "scale can fall no further, or, where nothing is scaled, at a weight that is NaN or "
        "infinite. Without it the run goes on and says so.")
    jit_compile: bool | None = declared(None, IDENTITY, Switch(),
        "Compile the step with XLA. Default: on a GPU yes; on a CPU only for float16, which is "
        "very slow there without it.", in_step=True)
    steps_per_execution: int = declared(1, IDENTITY, _COUNT,
        "Steps inside one call from the host, in both loops.")
    profile_steps: tuple[int, int] | None = declared(None, IDENTITY, kinds.StepRange(),
        "A,B: trace steps A to B for TensorBoard's tab Profile, which is a plugin of its own: "
        "TFAMP_EXTRAS=profile scripts/tensorboard.sh installs and shows it.")
    logdir: str = declared("runs", PLACE, kinds.Folder(), "Folder that holds the runs.")
    run_name: str | None = declared(None, PLACE, kinds.FolderName(),
        "Folder of this run. Default: model, dataset, policy, loop and seed.")
    # The device keeps a record of so many steps, of 40 bytes or a little more each.
    log_every: int = declared(10, IDENTITY, Number(whole(1, 1_000_000)),
        "Steps between two reads from the device; rows still hold every step.")
    underflow_every: int | None = declared(None, REPETITION, _COUNT,
        "Each so many steps, count per layer the gradient entries that float16 loses at the loss "
        "scale, by a second way back at 2^8 times the scale, and their exponents. Default: never.")
    underflow_of: str = declared("weights", REPETITION, Choice("gradient", UNDERFLOW_OF),
        "What --underflow_every looks at: gradients of weights, or of layers' outputs.")
    overwrite: bool = declared(False, PLACE, Switch(), "Replace a finished run of the same name.")
    save_model: bool = declared(True, PLACE, Switch(),
        "Save the last weights, and the model where a fresh process loads it (checked, which "
        "takes seconds).")
    save_best: bool = declared(False, PLACE, Switch(),
        "Keep the weights with the best validation accuracy too.")
    # fmt: on

    @property
    def static_loss_scale(self) -> float | None:
        """The fixed loss scale, or None where it is dynamic or off."""
        return None if self.loss_scale in LOSS_SCALE_MODES else float(self.loss_scale)

    @property
    def scale_settings(self) -> tuple[str, ...]:
        """Names of the loss-scale settings that differ from their defaults, bar `none`."""
        names = ("loss_scale", *SCALE_SETTINGS)
        return tuple(n for n in names if getattr(self, n) not in (getattr(Config, n), "none"))

    @property
    def has_moving_scale(self) -> bool:
        """Whether the loss scale, where there is one, is dynamic."""
        return self.loss_scale in ("dynamic", "auto")

    @property
    def is_user_model(self) -> bool:
        """Whether the model comes from a file of the user's, `path/to/file.py:function`."""
        return catalogue.is_user_model(self.model)

    @property
    def saved_names(self) -> tuple[str, ...]:
        """Names of the weights and the model that the run may write in its folder."""
        last = (FINAL_WEIGHTS, MODEL) if self.save_model else ()
        return last + ((BEST_WEIGHTS,) if self.save_best else ())

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types, for config.json."""
        return dataclasses.asdict(self)


def declarations(config: type[Config] | Config = Config) -> dict[str, Declared]:
    """What is declared of each setting, by name."""
    return {field.name: field.metadata["declared"] for field in dataclasses.fields(config)}


def names_of(*roles: Role) -> tuple[str, ...]:
    """The settings of some roles."""
    return tuple(name for name, each in declarations().items() if each.role in roles)


# What TensorBoard compares runs by.
HPARAMS = {name: each.hparam for name, each in declarations().items() if each.hparam}

# The settings that shape a dynamic float16 loss scale and mean nothing elsewhere, with the rule
# that each is.
SCALE_SETTINGS: dict[str, str] = {
    name: each.scale_rule for name, each in declarations().items() if each.scale_rule
}
