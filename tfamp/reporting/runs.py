"""Run directories as a report reads them: what is whole, and what is passed over and why."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfamp.reporting import run_fields
from tfamp.run import belongings, recorded, records
from tfamp.run.directory import RunDirectory

# A folder with this file is an earlier report.
_REPORT = "report.json"


class BrokenRunError(Exception):
    """A run directory that cannot be used; the message says why, in a sentence without a name."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A completed run, read and checked.

    Attributes:
        directory: Its folder, relative to the folder that was searched.
        config: The resolved configuration, as in config.json.
        result: result.json, with non-finite numbers as floats.
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
    config: dict[str, Any]
    result: dict[str, Any]
    rows: list[dict[str, Any]]
    command_line: list[str]
    git_revision: str | None
    computes_in: str | None = None
    trainable_parameters: int | None = None
    model_sha256: dict[str, str] | None = None

    @property
    def seed(self) -> int | None:
        """The seed of weights, order and augmentation; None where a script set none."""
        return self.config["seed"]

    @property
    def policy(self) -> str:
        """The precision policy."""
        return self.config["policy"]

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
        if folder.resolve() == out.resolve() or _REPORT in files:
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
        status = _object(directory.result).get("status")
    except BrokenRunError:
        return directory.config.exists()
    return status in ("failed", "interrupted")


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
    result = _object(directory.result)
    _check_version(result, "result.json")
    status = result.get("status")
    if status != "completed":
        error = f": {result['error']}" if result.get("error") else ""
        raise BrokenRunError(f"The run ended as {status!r}{error}.".replace("..", "."))
    record = _object(directory.config)
    _check_version(record, "config.json")
    config = record.get("config")
    if not isinstance(config, dict):
        raise BrokenRunError('config.json has no "config": tfamp.train did not write it.')
    result = {key: records.from_json_number(value) for key, value in result.items()}
    _check_fields(config, run_fields.CONFIG_FIELDS, "config.json")
    _check_fields(result, run_fields.RESULT_FIELDS, "result.json")
    command_line = record.get("command_line")
    revision = record.get("git_revision")
    parameters, content = record.get("trainable_parameters"), record.get("model_sha256")
    return FinishedRun(
        directory=name,
        config=recorded.completed(config),
        result=result,
        rows=_rows(directory.metrics),
        command_line=[str(part) for part in command_line] if isinstance(command_line, list) else [],
        git_revision=revision if isinstance(revision, str) else None,
        computes_in=_computes_in(result.get("computes_in", record.get("computes_in"))),
        trainable_parameters=parameters if run_fields.is_count(parameters) else None,
        model_sha256=content if run_fields.is_content(content) else None,
    )


def _computes_in(value: Any) -> str | None:
    """What a run recorded of it, in words; None where it is missing or of another form."""
    names = ("layers", "of_layers", "parameters", "of_parameters")
    if not isinstance(value, dict) or not all(run_fields.is_count(value.get(n)) for n in names):
        return None
    layers, of_layers, parameters, of_parameters = (value[name] for name in names)
    if not layers or not of_parameters:
        return "nothing"
    share = 100 * parameters / of_parameters
    return f"{layers} of {of_layers} layers, {share:.1f} % of the parameters ({value.get('dtype')})"


def _object(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        raise BrokenRunError(f"There is no {path.name}.") from None
    except (OSError, ValueError) as error:
        raise BrokenRunError(f"{path.name} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise BrokenRunError(f"{path.name} holds no JSON object.")
    return value


def _check_version(value: dict[str, Any], name: str) -> None:
    version = value.get("schema_version")
    if version != records.SCHEMA_VERSION:
        has = "has no schema version" if version is None else f"has schema version {version!r}"
        raise BrokenRunError(f"{name} {has}; this tfamp reads {records.SCHEMA_VERSION}.")


def _check_fields(value: dict[str, Any], fields: dict[str, run_fields.Check], name: str) -> None:
    for field, (is_right, wanted) in fields.items():
        if not is_right(value.get(field)):
            raise BrokenRunError(f"{name} has {field}={value.get(field)!r} where {wanted} belongs.")


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
        if not (run_fields.is_count(row.get("step")) and isinstance(row.get("kind"), str)):
            raise BrokenRunError("metrics.jsonl has a row without kind and step.")
        for field, figure in row.items():
            if "/" in field and not run_fields.is_number(figure):
                raise BrokenRunError(f"metrics.jsonl has {field}={figure!r} at step {row['step']}.")
    if not rows:
        raise BrokenRunError("metrics.jsonl has no rows.")
    return rows
