"""What a sweep varies: policies, models, datasets, loops, seeds and loss scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfamp.models import registry as model_registry
from tfamp.run import flags as run_flags
from tfamp.run.config import FLOAT16_POLICIES, LOSS_SCALE_MODES, declarations
from tfamp.run.errors import InputError, Setting, as_flag, setting
from tfamp.run.ranges import written

# The sweep's option for each setting of the trainer's that it takes several values of.
AXES = {name: each.axis for name, each in declarations().items() if each.axis}


@dataclasses.dataclass(frozen=True)
class Matrix:
    """The values of each axis, in the order they were given in.

    Every combination is a cell, but `loss_scales` counts for float16 policies only: the others
    scale nothing and have one cell each.
    """

    policies: tuple[str, ...] = ("float32", "mixed_float16")
    models: tuple[str, ...] = ("resnet20",)
    datasets: tuple[str, ...] = ("fashion_mnist_mini",)
    loops: tuple[str, ...] = ("fit",)
    seeds: tuple[int, ...] = (0,)
    loss_scales: tuple[str, ...] = ("dynamic",)

    @property
    def variants(self) -> list[tuple[str, str]]:
        """Every (policy, loss scale): what is compared."""
        return [
            (policy, loss_scale)
            for policy in self.policies
            for loss_scale in (self.loss_scales if policy in FLOAT16_POLICIES else ("dynamic",))
        ]


def read(lists: Mapping[str, str | None], train_flags: Sequence[str]) -> Matrix:
    """Makes the matrix of the sweep's own flags, checked.

    Args:
        lists: The comma-separated values by flag (`"policies"`, ...); None where it is not given.
            Then the value in a flagfile of the trainer's counts, then the default.
        train_flags: The flags for the trainer.

    Raises:
        InputError: A value cannot be, is there twice, or is set after `--` too.
    """
    _refuse_swept(train_flags)
    in_files = run_flags.parse(train_flags)
    values = {
        axis: str(in_files[flag].value) if in_files[flag].present else None
        for flag, axis in AXES.items()
    } | {axis: given for axis, given in lists.items() if given is not None}
    matrix = Matrix(
        **{
            axis: _list(name, axis, given)
            for name, axis in AXES.items()
            if (given := values[axis]) is not None
        }
    )
    if matrix.loss_scales != Matrix.loss_scales and not (
        set(matrix.policies) & set(FLOAT16_POLICIES)
    ):
        raise InputError(
            f"--loss_scales={values['loss_scales']} with --policies={','.join(matrix.policies)}: "
            "only float16 needs a loss scale. Add one of "
            f"{', '.join(FLOAT16_POLICIES)} to --policies, or leave --loss_scales out.",
            "loss_scales",
        )
    return matrix


def as_option(said: Setting) -> str:
    """In the terms of who starts a sweep; what came to a cell, `--policy=float32`, stays."""
    if said.name == "overwrite":
        return "'-- --overwrite'"
    if said.flag != said.name:
        return as_flag(said)
    return "LOGDIR" if said.name == "logdir" else f"--{AXES.get(said.name, said.name)}"


def _refuse_swept(train_flags: Sequence[str]) -> None:
    if "--" in train_flags:
        raise InputError(
            "A second '--' came: flags of the trainer follow the first one. Leave the second out."
        )
    written = run_flags.parse(run_flags.without_flagfiles(train_flags))
    for flag, axis in AXES.items():
        if written[flag].present:
            raise InputError(
                f"--{flag}={written[flag].value} after '--': the sweep sets --{flag} for each "
                f"cell. Set --{axis}={written[flag].value} before the '--' instead."
            )
    if written["logdir"].present:
        raise InputError(
            f"--logdir={written['logdir'].value} after '--': the sweep's first argument is the "
            f"LOGDIR of every cell. Give it there and leave --logdir out."
        )
    if written["run_name"].present:
        raise InputError(
            f"--run_name={written['run_name'].value} after '--': each cell is named after its "
            "model, dataset, policy, loop and seed. Leave --run_name out; another LOGDIR keeps "
            "two sweeps apart."
        )


def _list(name: str, axis: str, given: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in given.split(",")]
    if "" in parts:
        raise InputError(
            f"{setting(axis, given)}: an entry is empty. Give values with a comma between two, "
            f"such as {setting(axis, ','.join(filter(None, parts)) or _EXAMPLES[axis])}."
        )
    values: list[Any] = []
    for part in parts:
        value = _value(name, axis, part)
        if value in values:
            raise InputError(
                f"{setting(axis, given)}: {part!r} is there twice. Each value is one cell; leave "
                "the second out."
            )
        values.append(value)
    return tuple(values)


_EXAMPLES = {
    "policies": "float32,mixed_float16",
    "models": "resnet20,vit_tiny",
    "datasets": "fashion_mnist_mini,synthetic",
    "loops": "fit,custom",
    "seeds": "0,1,2",
    "loss_scales": "dynamic,none,1024",
}


def _value(name: str, axis: str, text: str) -> Any:
    kind = declarations()[name].kind
    try:
        value = kind.read(text)
    except ValueError as error:
        raise InputError(
            f"{setting(axis, text)}: {error} Several stand as in {setting(axis, _EXAMPLES[axis])}."
        ) from error
    kind.check(axis, value)
    if name == "model":
        model_registry.check_name(value)
    if name == "loss_scale" and value not in LOSS_SCALE_MODES:
        # One spelling for one value: 1024, 1024.0 and 1e3 make names and configs that are compared.
        return written(float(value))
    return value
