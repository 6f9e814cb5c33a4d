"""What in a run's folder a run wrote, and what is somebody else's.

Nothing that a run did not write may be removed or replaced, so what a run writes is marked:
config.json and result.json by a key, event files by a suffix, rows by their form. Weights and
models bear no mark; config.json lists the names under which its run saves. Runs of before the marks
are known by config.json's schema.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from tfamp.run import records, result, run_config, schema
from tfamp.run.result import BEST_WEIGHTS, FINAL_WEIGHTS, MODEL
from tfamp.run.run_config import RunConfig

EVENT_SUFFIX = ".tfamp"
# Of a file that is being written, until it takes its name.
PARTIAL_PREFIX = ".tfamp-partial-"

_SAVED = (FINAL_WEIGHTS, BEST_WEIGHTS, MODEL)
_EVENT_FOLDERS = ("train", "validation")
# What a run will write, or another command writes beside runs: a stranger's folder is one too.
_OTHER_FOLDERS = ("checkpoints", "fidelity", "report")
_EVENTS = "events.out.tfevents."
_REPLACED = re.compile(r"replaced-\d{8}T\d{6}Z(-\d+)?")


def is_replaced(name: str) -> bool:
    """Whether a folder of this name holds the files of a run that another took the place of."""
    return _REPLACED.fullmatch(name) is not None


@dataclasses.dataclass(frozen=True)
class Belongings:
    """Whose the files are that lie under a run's names; all others are nobody's concern.

    Attributes:
        own: What runs wrote, relative to the folder, in the order in which it is safe to move:
            result.json first and config.json, which says whose the others are, last.
        foreign: What no run wrote and a new run would replace or mix with its own.
    """

    own: tuple[Path, ...]
    foreign: tuple[Path, ...]


def look(folder: Path, saves: Collection[str] = ()) -> Belongings:
    """Looks through a folder that a run is about to use. No link is followed.

    In a folder without a run every file and folder under a run's name is foreign. Beside a run
    what it did not write is left alone where the new run does not write either: a note, a
    checkpoint of the user's, a file in train/.

    Args:
        folder: A folder that may be absent.
        saves: Names of weights and models that the new run will write.

    Raises:
        OSError: Something cannot be read.
    """
    if not folder.is_dir():
        return Belongings((), ())
    return _Look(folder, saves).belongings()


class _Look:
    def __init__(self, folder: Path, saves: Collection[str]) -> None:
        self._folder = folder
        self._saves = saves
        config = _object_of_a_run(folder / "config.json", run_config.is_of_a_run)
        self._config = None if config is None else schema.parsed(RunConfig, config, "config.json")
        self._result = _object_of_a_run(folder / "result.json", result.is_of_a_run)
        self._is_run = (
            self._config is not None
            or self._result is not None
            or any(is_replaced(path.name) for path in folder.iterdir())
        )

    def belongings(self) -> Belongings:
        own: list[Path] = []
        foreign: list[Path] = []
        for path, is_own in self._judged():
            (own if is_own else foreign).append(path.relative_to(self._folder))
        last = {"result.json": -1, "config.json": 1}
        own.sort(key=lambda path: (last.get(str(path), 0), str(path)))
        return Belongings(tuple(own), tuple(sorted(foreign)))

    def _judged(self) -> Iterator[tuple[Path, bool]]:
        """Every path that counts, and whether a run wrote it."""
        for path in self._folder.iterdir():
            name = path.name
            if name == "config.json":
                yield path, self._config is not None
            elif name == "result.json":
                yield path, self._result is not None
            elif name == "metrics.jsonl":
                yield path, self._is_own_rows(path)
            elif name.startswith(PARTIAL_PREFIX):
                yield path, True
            elif name in _SAVED:
                if name in self._saved_there():
                    yield path, _is_file(path)
                elif name in self._saves or not self._is_run:
                    yield path, False
            elif name.startswith(_EVENTS):
                yield from self._judged_events(path)
            elif name in _EVENT_FOLDERS:
                yield from self._judged_event_folder(path)
            elif name in _OTHER_FOLDERS and not self._is_run and not _is_empty(path):
                yield path, False

    def _judged_event_folder(self, folder: Path) -> Iterator[tuple[Path, bool]]:
        if folder.is_symlink() or not folder.is_dir():
            yield folder, False
            return
        for path in folder.iterdir():
            if path.name.startswith(_EVENTS):
                yield from self._judged_events(path)
            elif path.name == "plugins" and folder.name == "train" and self._has_profiled():
                yield path, not path.is_symlink()
            elif not self._is_run:
                yield path, False

    def _judged_events(self, path: Path) -> Iterator[tuple[Path, bool]]:
        if not _is_file(path):
            if not self._is_run:
                yield path, False
        elif path.name.endswith(EVENT_SUFFIX):
            yield path, True
        elif re.search(rf"\.{os.getpid()}\.\d+(\.|$)", path.name):
            # Another callback of this very script, such as Keras's TensorBoard, is writing it: it
            # has begun before the run has, and means to be here.
            return
        elif self._config is not None:
            yield path, True
        elif not self._is_run:
            yield path, False

    def _is_own_rows(self, path: Path) -> bool:
        if not _is_file(path):
            return False
        with open(path, "rb") as file:
            line = file.readline(1 << 20)
        if not line.endswith(b"\n"):
            # As a run leaves it that was killed before its first row.
            return self._config is not None
        try:
            row = json.loads(line)
        except ValueError:
            return False
        return (
            isinstance(row, dict)
            and row.get("kind") in records.ROW_KINDS
            and all(isinstance(row.get(name), int) for name in ("step", "epoch"))
        )

    def _saved_there(self) -> Collection[str]:
        return () if self._config is None else self._config.saves

    def _has_profiled(self) -> bool:
        return self._config is not None and bool(self._config.config.get("profile_steps"))


def _object_of_a_run(
    path: Path, is_of_a_run: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    """A JSON file's object if a run wrote it."""
    if not _is_file(path):
        return None
    try:
        value = schema.read_object(path)
    except ValueError:
        return None
    return value if value is not None and is_of_a_run(value) else None


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
