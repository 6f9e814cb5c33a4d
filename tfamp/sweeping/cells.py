"""The cells that a matrix asks for: their order, names and commands."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from tfamp.models import user_files
from tfamp.run import flags as run_flags
from tfamp.run.config import FLOAT16_POLICIES, SCALE_SETTINGS, Config
from tfamp.run.errors import InputError
from tfamp.run.resolve import default_run_name, shapes
from tfamp.sweeping.cell import Cell
from tfamp.sweeping.matrix import AXES, Matrix


def make(matrix: Matrix, logdir: str, train_flags: Sequence[str]) -> list[Cell]:
    """Makes the cells of a sweep, in the order in which they run.

    The seed is outermost and the policy (with its loss scale) innermost, so that drift of the
    machine hits all policies alike. Each group of policies begins with another one than the group
    before it, and than the same group of the seed before, so that none is always first.

    Args:
        matrix: What is varied.
        logdir: Folder of all runs.
        train_flags: Flags for every cell.

    Raises:
        InputError: The trainer would refuse a cell, or two cells would have the same name.
    """
    common = list(train_flags)
    if not gives_jit_compile(train_flags):
        common.append("--jit_compile")
    parsed = run_flags.parse(common)
    shaping = [name for name in SCALE_SETTINGS if parsed[name].present]
    used: set[str] = set()
    cells = []
    for seed_number, seed in enumerate(matrix.seeds):
        groups = itertools.product(matrix.models, matrix.datasets, matrix.loops)
        for number, (model, dataset, loop) in enumerate(groups):
            shift = (seed_number + number) % len(matrix.variants)
            for policy, loss_scale in matrix.variants[shift:] + matrix.variants[:shift]:
                values = Config(
                    policy=policy,
                    model=model,
                    dataset=dataset,
                    loop=loop,
                    seed=seed,
                    loss_scale=loss_scale,
                    logdir=logdir,
                )
                idle = [name for name in shaping if not _shapes(name, values)]
                used.update(set(shaping) - set(idle))
                cells.append(
                    _cell(values, run_flags.as_arguments(parsed, but=idle) if idle else common)
                )
    _refuse_same_names(cells)
    for name in shaping:
        if name not in used:
            raise InputError(
                f"--{name} after '--', but no cell has a loss scale that it shapes. Add "
                f"{' or '.join(FLOAT16_POLICIES)} to --policies and dynamic to "
                f"--loss_scales, or leave --{name} out."
            )
    return cells


def gives_jit_compile(train_flags: Sequence[str]) -> bool:
    """Whether the user decides about XLA, in whatever spelling."""
    return bool(run_flags.parse(train_flags)["jit_compile"].present)


def _shapes(flag: str, values: Config) -> bool:
    """Whether a flag of a loss scale says something of this cell's."""
    return values.policy in FLOAT16_POLICIES and shapes(flag, values.loss_scale)


def _cell(values: Config, common: Sequence[str]) -> Cell:
    name = run_name(values)
    # Last, because they win over what a flagfile says.
    arguments = [*common, *(f"--{flag}={getattr(values, flag)}" for flag in (*AXES, "logdir"))]
    arguments.append(f"--run_name={name}")
    try:
        config = run_flags.config_from_arguments(arguments)
    except InputError as error:
        reason = error.message
        raise InputError(f"The cell {name} cannot be run: {reason}", error.field) from error
    return Cell(config, tuple(arguments), user_files.sha256(config.model))


def run_name(config: Config) -> str:
    """The name of a cell's run: the trainer's own, and the loss scale where it is not dynamic."""
    name = default_run_name(config)
    if config.loss_scale == "dynamic":
        return name
    return f"{name}-loss_scale_{re.sub(r'[^A-Za-z0-9._]+', '_', config.loss_scale)}"


def _refuse_same_names(cells: Sequence[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.name, cell)
        if other is not cell:
            field = "model" if other.config.model != cell.config.model else "dataset"
            raise InputError(
                f"{getattr(other.config, field)} and {getattr(cell.config, field)} would both run "
                f"as {cell.name}. Give files and functions names that differ in letters and "
                "digits, or sweep them into two LOGDIRs."
            )


def check_on_disk(cells: Sequence[Cell], overwrite: bool) -> None:
    """Refuses a LOGDIR that cannot be written, or that holds other finished runs of these names.

    Args:
        cells: The cells.
        overwrite: Whether other finished runs may be replaced.

    Raises:
        InputError: As said.
    """
    conflicts = []
    for cell in cells:
        # Whether the folder can be written; finished runs are looked at below.
        cell.directory.check(overwrite=True)
        conflict = cell.conflict()
        if conflict:
            conflicts.append(f"{cell.directory.path} ({', '.join(map(str, conflict))})")
    if conflicts and not overwrite:
        more = f", and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""
        raise InputError(
            f"Finished with another configuration: {'; '.join(conflicts[:3])}{more}. Finished runs "
            "are kept. Give another LOGDIR, or add '-- --overwrite' to replace these."
        )
