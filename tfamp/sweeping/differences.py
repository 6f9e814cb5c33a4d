"""In what a run on disk differs from the one that a sweep wants."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tfamp.run import flags as run_flags
from tfamp.run import records
from tfamp.run.config import Config, Role, names_of
from tfamp.run.errors import InputError
from tfamp.run.run_config import RunConfig, changed_files, short_hash
from tfamp.run.schema import OtherVersionError, RecordError

_ABSENT = "absent"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        what: A setting, or a file.
        there: What the run on disk has.
        here: What the sweep wants.
        is_model_file: Whether it is a file of a user's model, which was edited.
    """

    what: str
    there: Any
    here: Any
    is_model_file: bool = False

    def __str__(self) -> str:
        what = f"the content of {self.what}," if self.is_model_file else self.what
        return f"{what} {_in_words(self.there)} there and {_in_words(self.here)} here"


def _in_words(value: Any) -> str:
    return "left open" if value is None else str(value)


def differences(
    path: Path, config: Config, model_sha256: dict[str, str] | None
) -> list[Difference]:
    """Compares what a run recorded with what a sweep wants.

    Args:
        path: The run's config.json.
        config: The settings that are wanted.
        model_sha256: The content of a user's model as it is now; None for one of tfamp's.
    """
    try:
        record = RunConfig.read(path)
        found = record.settings()
    except OtherVersionError as other:
        return [Difference("schema_version", other.version, records.SCHEMA_VERSION)]
    except RecordError:
        return [Difference("config.json", "not there or unreadable", "this sweep's")]
    # Through JSON, where a tuple is a list.
    wanted = json.loads(json.dumps(config.to_json()))
    _leave_to_the_run(wanted, found, _asked(record))
    places = names_of(Role.PLACE)
    of_settings = [
        Difference(name, found.get(name, _ABSENT), wanted.get(name, _ABSENT))
        for name in dict.fromkeys((*wanted, *found))
        if name not in places
    ]
    differing = [each for each in of_settings if each.there != each.here]
    return differing + _of_model(record.model_sha256, model_sha256)


def _of_model(there: dict[str, str] | None, here: dict[str, str] | None) -> list[Difference]:
    if there is None or here is None:
        return []
    return [
        Difference(name, short_hash(trained), short_hash(now), is_model_file=True)
        for name, (trained, now) in changed_files(there, here).items()
    ]


def _leave_to_the_run(
    wanted: dict[str, Any], found: dict[str, Any], asked: Collection[str] | None
) -> None:
    """Takes over into `wanted` what the run decided, as neither it nor the sweep was asked."""
    steps = wanted["steps_per_epoch"]
    if steps is not None:
        # fit runs whole executions, so older runs rounded down.
        wanted["steps_per_epoch"] = steps - steps % wanted["steps_per_execution"]
    if wanted["loss_scale"] == "auto":
        wanted["initial_loss_scale"] = found["initial_loss_scale"]
    for name in (name for name, value in wanted.items() if value is None):
        # None is what is left open where it is the default; of a limit it is none.
        if getattr(Config, name) is None and asked is not None and name not in asked:
            wanted[name] = found[name]


def _asked(record: RunConfig) -> Collection[str] | None:
    """The settings that a run was asked for; None where that cannot be told."""
    if record.asked is not None:
        return record.asked
    # An older run: config.json holds the number of steps that was run, which a shorter epoch that
    # was asked for has too. What was asked is in the command line.
    try:
        return run_flags.asked(run_flags.parse(record.command_line[1:]))
    except InputError:
        return None
