"""The cells of a sweep: their order, names and commands, and what is on disk of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfamp.models import user_files
from tfamp.run import flags as run_flags
from tfamp.run import recorded, records
from tfamp.run.config import FLOAT16_POLICIES, SCALE_SETTINGS, Config, Role, names_of
from tfamp.run.directory import RunDirectory
from tfamp.run.errors import InputError
from tfamp.run.resolve import default_run_name, shapes
from tfamp.run.run_config import RunConfig
from tfamp.run.schema import OtherVersionError, RecordError
from tfamp.sweeping.matrix import AXES, Matrix

_ABSENT = "absent"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of a sweep.

    Attributes:
        config: What the trainer makes of `arguments`.
        arguments: The flags for `python -m tfamp.train`.
        model_sha256: The content of a user's model as the sweep began; None for one of tfamp's.
    """

    config: Config
    arguments: tuple[str, ...]
    model_sha256: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """The run's name, of which there is one in a sweep."""
        return str(self.config.run_name)

    @property
    def directory(self) -> RunDirectory:
        """Where the run's files lie; as the trainer makes it."""
        path = f"{self.config.logdir}/{self.config.run_name}"
        # A sweep names its cells itself.
        return RunDirectory(path, self.config.saved_names, named_by=("logdir",))

    @property
    def log(self) -> Path:
        """The file that takes what the process prints."""
        return self.directory.path / "train.log"

    def command(self) -> list[str]:
        """The command line of the cell's process."""
        return [sys.executable, "-m", "tfamp.train", *self.arguments]

    def is_finished(self) -> bool:
        """Whether a completed run of just this config is on disk.

        Raises:
            InputError: The run on disk cannot be read.
        """
        return self.directory.is_completed() and not self._differences()

    def conflict(self) -> dict[str, tuple[Any, Any]]:
        """What a completed run of this name was run with instead: `{field: (there, here)}`.

        Empty where no run is completed or it is this cell's own.

        Raises:
            InputError: The run on disk cannot be read.
        """
        return self._differences() if self.directory.is_completed() else {}

    def seconds_on_disk(self) -> float | None:
        """Roughly how long a finished run took, less its imports and the loading of data."""
        try:
            done, began = self.directory.result.stat(), self.directory.config.stat()
        except OSError:
            return None
        return max(0.0, done.st_mtime - began.st_mtime)

    def _differences(self) -> dict[str, tuple[Any, Any]]:
        try:
            record = RunConfig.read(self.directory.config)
            found = record.settings()
        except OtherVersionError as other:
            return {"schema_version": (other.version, records.SCHEMA_VERSION)}
        except RecordError:
            return {"config.json": ("not there or unreadable", "this sweep's")}
        # Through JSON, where a tuple is a list.
        wanted = json.loads(json.dumps(self.config.to_json()))
        self._leave_to_the_run(wanted, found, record.command_line)
        pairs = {
            name: (found.get(name, _ABSENT), wanted.get(name, _ABSENT))
            for name in dict.fromkeys((*wanted, *found))
            if name not in names_of(Role.PLACE)
        }
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return differing | self._changed_files(record.model_sha256)

    def _changed_files(self, trained: dict[str, str] | None) -> dict[str, tuple[str, str]]:
        """The files of a user's model that are no longer as they were when the run was trained."""
        if self.model_sha256 is None or trained is None:
            return {}
        return {
            f"the content of {name},": (recorded.short_hash(there), recorded.short_hash(here))
            for name, (there, here) in recorded.changed_files(trained, self.model_sha256).items()
        }

    def _leave_to_the_run(
        self, wanted: dict[str, Any], found: dict[str, Any], command_line: Sequence[str]
    ) -> None:
        """Takes over into `wanted` what the run decides where the user leaves it open."""
        if wanted["jit_compile"] is None:
            wanted["jit_compile"] = found.get("jit_compile")
        steps = wanted["steps_per_epoch"]
        if steps is not None:
            # fit runs whole executions, so the run rounds down.
            wanted["steps_per_epoch"] = steps - steps % self.config.steps_per_execution
        elif _asked_for_whole_epochs(command_line):
            wanted["steps_per_epoch"] = found.get("steps_per_epoch")


def _asked_for_whole_epochs(command_line: Sequence[str]) -> bool:
    # config.json holds the number that was run, which a shorter epoch that was asked for has too;
    # what was asked is in the command line.
    try:
        return run_flags.parse(command_line[1:])["steps_per_epoch"].value is None
    except InputError:
        return False


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
            fields = ", ".join(
                f"{name} {_shown(there)} there and {_shown(here)} here"
                for name, (there, here) in conflict.items()
            )
            conflicts.append(f"{cell.directory.path} ({fields})")
    if conflicts and not overwrite:
        more = f", and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""
        raise InputError(
            f"Finished with another configuration: {'; '.join(conflicts[:3])}{more}. Finished runs "
            "are kept. Give another LOGDIR, or add '-- --overwrite' to replace these."
        )


def _shown(value: Any) -> str:
    return "left open" if value is None else str(value)
