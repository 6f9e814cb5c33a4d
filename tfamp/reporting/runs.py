"""Run directories as a report reads them: what is whole, and what is passed over and why."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfamp.run import belongings, json_types, records, schema
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.fidelity import FIDELITY
from tfamp.run.result import ComputesIn, Figures, RunResult, status_of
from tfamp.run.run_config import RunConfig
from tfamp.run.schema import RecordError

# A folder with one of these files is what another command wrote.
_PAGES = {"report.json", FIDELITY}


class BrokenRunError(Exception):
    """A run directory that cannot be used; the message says why, in a sentence without a name."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A completed run, read and checked.

    Attributes:
        directory: Its folder, relative to the folder that was searched.
        config: The resolved settings; None is what a script did not tell.
        settings: The same by name, with those of other versions, for comparing.
        result: result.json.
        figures: What the run measured.
        rows: The rows of metrics.jsonl.
        command_line: What the user typed.
        git_revision: Revision of the checkout that ran, or None.
        computes_in: What really computed in 16 bits, in words, or None where an older run did not
            record it.
        trainable_parameters: Their number, or None where an older run did not record it.
        model_sha256: The content of a user's model file and of what it imports beside it, by file
            name; None for tfamp's own models and where an older run did not record it.
    """

    directory: str
    config: Config
    settings: dict[str, Any]
    result: RunResult
    figures: Figures
    rows: list[dict[str, Any]]
    command_line: list[str]
    git_revision: str | None
    computes_in: str | None = None
    trainable_parameters: int | None = None
    model_sha256: dict[str, str] | None = None

    @property
    def seed(self) -> int | None:
        """The seed of weights, order and augmentation; None where a script set none."""
        return self.config.seed

    @property
    def policy(self) -> str:
        """The precision policy."""
        return self.config.policy

    @property
    def step_rows(self) -> list[dict[str, Any]]:
        """The rows of steps, in order."""
        return [row for row in self.rows if row.get("kind") == "step"]

    @property
    def epoch_rows(self) -> list[dict[str, Any]]:
        """The rows of epochs, in order."""
        return [row for row in self.rows if row.get("kind") == "epoch"]

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, figure) of every step row that has the figure."""
        return [(row["step"], row[name]) for row in self.step_rows if name in row]


@dataclasses.dataclass(frozen=True)
class PassedOver:
    """A folder that the report does not use.

    Attributes:
        directory: The folder, relative to the folder that was searched.
        why: The reason, a sentence.
        is_unfinished: Whether a run began there and did not end well.
    """

    directory: str
    why: str
    is_unfinished: bool = False


def find(logdir: Path, out: Path) -> tuple[list[FinishedRun], list[PassedOver]]:
    """Reads every run below a folder, however deep, in the order of their names.

    Args:
        logdir: The folder to search.
        out: The report's own folder, which is not searched.

    Returns:
        runs: The completed runs.
        passed_over: The folders that hold no usable run, each with the reason.
    """
    runs: list[FinishedRun] = []
    passed_over: list[PassedOver] = []
    for folder, holds_run in _candidates(logdir, out, passed_over):
        name = _name(folder, logdir)
        if not holds_run:
            passed_over.append(PassedOver(name, "It holds no run: no config.json, no rows."))
            continue
        try:
            runs.append(read(folder, name))
        except BrokenRunError as broken:
            passed_over.append(PassedOver(name, str(broken), is_unfinished=_has_begun(folder)))
    return runs, passed_over


def _name(folder: Path, logdir: Path) -> str:
    # A LOGDIR may be one run itself.
    return folder.resolve().name if folder == logdir else folder.relative_to(logdir).as_posix()


def _candidates(
    logdir: Path, out: Path, passed_over: list[PassedOver]
) -> Iterator[tuple[Path, bool]]:
    """Yields run folders, and folders in which there is no run anywhere."""

    def note(error: OSError) -> None:
        name = _name(Path(error.filename), logdir)
        passed_over.append(PassedOver(name, f"It cannot be read: {error.strerror}."))

    for above, names, files in os.walk(logdir, onerror=note):
        folder = Path(above)
        directory = RunDirectory(folder)
        own = {path.name for path in (directory.config, directory.metrics, directory.result)}
        if own & set(files):
            names.clear()
            yield folder, True
            continue
        if folder.resolve() == out.resolve() or _PAGES & set(files):
            names.clear()
            continue
        has_folders = bool(names)
        names[:] = sorted(
            name for name in names if not (name.startswith(".") or belongings.is_replaced(name))
        )
        if not has_folders and folder != logdir:
            yield folder, False


def _has_begun(folder: Path) -> bool:
    directory = RunDirectory(folder)
    try:
        result = schema.read_object(directory.result)
    except (OSError, ValueError):
        result = None
    if result is None:
        return directory.config.exists()
    return status_of(result) in ("failed", "interrupted")


def read(folder: Path, name: str) -> FinishedRun:
    """Reads one run directory.

    Args:
        folder: The run's folder.
        name: What the report calls it.

    Raises:
        BrokenRunError: It is not a completed run of this schema, or not whole.
    """
    directory = RunDirectory(folder)
    if not directory.result.exists():
        raise BrokenRunError("There is no result.json: the run did not finish.")
    try:
        result = RunResult.read(directory.result)
        if result.status != "completed":
            error = f": {result.error}" if result.error else ""
            raise BrokenRunError(f"The run ended as {result.status!r}{error}.".replace("..", "."))
        recorded = RunConfig.read(directory.config)
        config, settings = recorded.as_config(), recorded.settings()
    except RecordError as error:
        raise BrokenRunError(str(error)) from error
    if result.figures is None:
        raise BrokenRunError("result.json has no figures.")
    return FinishedRun(
        directory=name,
        config=config,
        settings=settings,
        result=result,
        figures=result.figures,
        rows=_rows(directory.metrics),
        command_line=list(recorded.command_line),
        git_revision=recorded.git_revision,
        computes_in=_in_words(result.computes_in or recorded.computes_in),
        trainable_parameters=recorded.trainable_parameters,
        model_sha256=recorded.model_sha256,
    )


def _in_words(counted: ComputesIn | None) -> str | None:
    """What computed in 16 bits; None where a run did not record it."""
    if counted is None:
        return None
    if not counted.layers or not counted.of_parameters:
        return "nothing"
    share = 100 * counted.parameters / counted.of_parameters
    return (
        f"{counted.layers} of {counted.of_layers} layers, {share:.1f} % of the parameters "
        f"({counted.dtype})"
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    raise BrokenRunError("metrics.jsonl ends in the middle of a line.")
        rows = records.read_rows(path)
    except FileNotFoundError:
        raise BrokenRunError("There is no metrics.jsonl.") from None
    except (OSError, ValueError) as error:
        text = str(error).replace(str(path), path.name).rstrip(".")
        raise BrokenRunError(f"metrics.jsonl cannot be read: {text}.") from error
    for row in rows:
        if not (json_types.is_count(row.get("step")) and isinstance(row.get("kind"), str)):
            raise BrokenRunError("metrics.jsonl has a row without kind and step.")
        for field, figure in row.items():
            if "/" in field and not json_types.is_number(figure):
                raise BrokenRunError(f"metrics.jsonl has {field}={figure!r} at step {row['step']}.")
    if not rows:
        raise BrokenRunError("metrics.jsonl has no rows.")
    return rows
