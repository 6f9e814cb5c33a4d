"""The folder of a sweep: one sweep at a time, and a note of all its cells."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfamp.run.directory import write_json
from tfamp.run.errors import InputError

SCHEMA_VERSION = 1
FILE_NAME = "sweep.json"
LOCK_NAME = ".sweep.lock"

# A killed sweep's processes die at once; a process in the kernel's hands can take a while.
_ORPHAN_WAIT_SEC = 30.0
_POLL_SEC = 0.2


class SweepFolder:
    """LOGDIR of a sweep, with its lock and its sweep.json.

    Args:
        path: The folder. It is made when it is locked.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

    @contextlib.contextmanager
    def locked(
        self,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[int]:
        """Keeps every other sweep out of the folder.

        Processes that inherit the lock's file descriptor hold the lock too: where a sweep was
        killed and a process of it lives on, the next sweep waits for that one to end.

        Args:
            say: Where lines for the user go.
            sleep: Waits for seconds.

        Yields:
            The file descriptor of the lock.

        Raises:
            InputError: Another sweep is at work here, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(
                f"Cannot write in {self.path}: {error.strerror or error}. Give a LOGDIR that you "
                "can write to."
            ) from error
        try:
            self._take(lock, say, sleep)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield lock
        finally:
            os.close(lock)

    def _take(self, lock: int, say: Callable[[str], None], sleep: Callable[[float], None]) -> None:
        waits = int(_ORPHAN_WAIT_SEC / _POLL_SEC)
        for attempt in range(waits + 1):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            except OSError as error:
                raise InputError(
                    f"Cannot lock {self.path / LOCK_NAME}: {error.strerror or error}. Give a "
                    "LOGDIR on a file system that has locks."
                ) from error
            if attempt == waits or _is_alive(holder):
                raise InputError(
                    f"Another sweep (process {holder or 'unknown'}) is at work in {self.path}. "
                    "One sweep at a time runs in a LOGDIR. Wait for it or stop it, or give "
                    "another LOGDIR."
                )
            if attempt == 0:
                say(f"A killed sweep left processes in {self.path}; waiting for them to end ...")
            sleep(_POLL_SEC)

    def note(self, command_line: Sequence[str], jobs: int, cells: Sequence[str]) -> None:
        """Writes sweep.json: what this sweep runs, and what earlier ones here were to run.

        The cells of earlier sweeps come first and stay; of `jobs` the larger number stays, since
        times of cells that ran side by side cannot be compared.

        Args:
            command_line: What the user typed, of the last sweep.
            jobs: Processes at a time.
            cells: Names of the runs.

        Raises:
            InputError: A sweep.json is there that no sweep of this version wrote.
        """
        before = self._read()
        note = {
            "schema_version": SCHEMA_VERSION,
            "command_line": list(command_line),
            "jobs": max(jobs, before["jobs"]),
            "cells": list(dict.fromkeys((*before["cells"], *cells))),
        }
        write_json(self.path / FILE_NAME, note)

    def _read(self) -> dict[str, Any]:
        path = self.path / FILE_NAME
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            if note["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version is {note['schema_version']}")
            return {"jobs": int(note["jobs"]), "cells": [str(name) for name in note["cells"]]}
        except FileNotFoundError:
            return {"jobs": 1, "cells": []}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not what a sweep writes ({error}). Remove it, or give another LOGDIR."
            ) from error


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
