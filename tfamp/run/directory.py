"""The run directory: where a run's files lie, and how they are written safely."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tfamp.run.errors import InputError

# What a run writes; an unfinished or overwritten run loses these names and no others.
_OWN_NAMES = (
    "config.json",
    "metrics.jsonl",
    "result.json",
    "train",
    "validation",
    "checkpoints",
)


class RunDirectory:
    """LOGDIR/RUN_NAME/ with its files; see the contract in CONTRIBUTING.md.

    Args:
        path: The folder of this one run. It is made when it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

    @property
    def metrics(self) -> Path:
        """The file of rows."""
        return self.path / "metrics.jsonl"

    @property
    def config(self) -> Path:
        """The file that says what was run, with what and on what."""
        return self.path / "config.json"

    @property
    def result(self) -> Path:
        """The file written last; without it the run did not finish."""
        return self.path / "result.json"

    def check(self, overwrite: bool = False) -> None:
        """Refuses early what `prepare` would refuse; changes nothing.

        Raises:
            InputError: As for `prepare`.
        """
        if self.is_completed() and not overwrite:
            raise InputError(
                f"{self.path} holds a finished run. Set --overwrite to replace it, or another "
                "--run_name, --seed or --logdir."
            )
        above = self.path
        while not above.exists() and above != above.parent:
            above = above.parent
        if not above.is_dir():
            raise InputError(f"{above} is a file. Set --logdir to a folder.")
        if not os.access(above, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(
                f"Cannot read and write in {above}. Set --logdir to a folder where you can."
            )

    def prepare(self, overwrite: bool = False) -> None:
        """Makes the folder ready for a new run.

        What an unfinished, failed or interrupted run of the same name left is removed;
        files that are not a run's are left alone.

        Raises:
            InputError: A completed run of that name is there and `overwrite` is off, or the
                folder cannot be written.
        """
        self.check(overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in _OWN_NAMES:
                target = self.path / name
                if target.is_dir():
                    shutil.rmtree(target)
                elif target.exists():
                    target.unlink()
            for events in self.path.glob("events.out.tfevents.*"):
                events.unlink()
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.path}: {error.strerror or error}. Set --logdir to a "
                "folder that you can write to."
            ) from error

    def is_completed(self) -> bool:
        """Whether a run ended here with `status: completed`."""
        try:
            with open(self.result, encoding="utf-8") as file:
                return json.load(file).get("status") == "completed"
        except FileNotFoundError:
            return False
        except OSError as error:
            raise InputError(
                f"Cannot read {self.result}: {error.strerror or error}. Set --logdir to a folder "
                "that you can read and write."
            ) from error
        except (json.JSONDecodeError, AttributeError):
            return False


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file atomically: a reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".tmp")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
