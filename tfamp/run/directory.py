"""The run directory: where a run's files lie, and how they are written safely."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfamp.run import belongings as belongings_lib
from tfamp.run import schema
from tfamp.run.belongings import Belongings
from tfamp.run.errors import InputError, setting
from tfamp.run.result import RunResult, status_of
from tfamp.run.run_config import RunConfig

# Foreign files that a message names, at most.
_NAMED = 5


class RunDirectory:
    """LOGDIR/RUN_NAME/ with its files; see the contract in CONTRIBUTING.md.

    Args:
        path: The folder of this one run. It is made when it is not there.
        saves: Names of weights and models that the run will write there.
        named_by: The settings that say where the folder is, for messages; the last one says in
            which folder it lies.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        saves: Collection[str] = (),
        named_by: Sequence[str] = ("run_name", "logdir"),
    ) -> None:
        self.path = Path(path).expanduser()
        self.saves = tuple(saves)
        self._elsewhere = f"another {' or '.join(map(setting, named_by))}"
        self._writable = f"Set {setting(named_by[-1])} to a folder where you can read and write."

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

    def write_config(self, config: RunConfig) -> None:
        """Writes config.json, with the names under which the run saves."""
        write_json(self.config, dataclasses.replace(config, saves=self.saves).to_json())

    def write_result(self, result: RunResult) -> None:
        """Writes result.json."""
        write_json(self.result, result.to_json())

    def check(self, overwrite: bool = False) -> None:
        """Refuses early what `prepare` would refuse; changes nothing.

        Raises:
            InputError: As for `prepare`.
        """
        self._look(overwrite)

    def prepare(self, overwrite: bool = False) -> Path | None:
        """Makes the folder ready for a new run.

        What an unfinished, failed, interrupted or overwritten run left is moved to a folder
        `replaced-<UTC>` in it. What no run wrote is neither moved nor replaced.

        Returns:
            That folder; None where there was nothing to move.

        Raises:
            InputError: A completed run is there and `overwrite` is off; or files are there under
                a run's names that no run wrote; or the folder cannot be written.
        """
        own = self._look(overwrite).own
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f"{belongings_lib.PARTIAL_PREFIX}probe"
            probe.touch()
            probe.unlink()
            return self._set_aside(own) if own else None
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.path}: {error.strerror or error}. {self._writable}"
            ) from error

    def _look(self, overwrite: bool) -> Belongings:
        above = self.path
        try:
            while not above.exists() and above != above.parent:
                above = above.parent
        except OSError as error:
            raise InputError(
                f"{self.path} can be no folder: {error.strerror or error}. {self._writable}"
            ) from error
        if not above.is_dir():
            raise InputError(f"{above} is a file. {self._writable}")
        if not os.access(above, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(f"Cannot read and write in {above}. {self._writable}")
        try:
            found = belongings_lib.look(self.path, self.saves)
        except OSError as error:
            raise InputError(
                f"Cannot read {error.filename or self.path}: {error.strerror or error}. "
                f"{self._writable}"
            ) from error
        if found.foreign:
            raise InputError(
                f"{self.path} holds what no run of tfamp wrote, under names that a run uses: "
                f"{self._listed(found.foreign)}. Nothing of it is replaced, whether a run may be "
                f"overwritten or not. Set {self._elsewhere}."
            )
        if self.is_completed() and not overwrite:
            raise InputError(
                f"{self.path} holds a finished run. Set {setting('overwrite', True)} to replace "
                f"it, or {self._elsewhere}."
            )
        return found

    def _listed(self, paths: Sequence[Path]) -> str:
        named = [
            f"{path}/" if (self.path / path).is_dir() else str(path) for path in paths[:_NAMED]
        ]
        more = f" and {len(paths) - _NAMED} more" if paths[_NAMED:] else ""
        return ", ".join(named) + more

    def _set_aside(self, own: Sequence[Path]) -> Path:
        aside = self._new_folder()
        for path in own:
            # Neither TensorBoard nor its profiler may take what lies there for a run.
            parts = [part.replace("tfevents", "replaced") for part in path.parts]
            parts = ["replaced-plugins" if part == "plugins" else part for part in parts]
            target = aside.joinpath(*parts)
            target.parent.mkdir(exist_ok=True)
            os.rename(self.path / path, target)
        return aside

    def _new_folder(self) -> Path:
        now = datetime.datetime.now(datetime.timezone.utc)
        name, number = f"replaced-{now:%Y%m%dT%H%M%SZ}", 1
        while True:
            folder = self.path / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1

    def is_completed(self) -> bool:
        """Whether a run ended here with `status: completed`."""
        try:
            return status_of(schema.read_object(self.result)) == "completed"
        except FileNotFoundError:
            return False
        except OSError as error:
            raise InputError(
                f"Cannot read {self.result}: {error.strerror or error}. {self._writable}"
            ) from error
        except ValueError:
            return False


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a name to write to; at the end what is there takes the place of `path` at once.

    The name ends as `path` does, since Keras chooses a format by it. Where the body raises, or
    writes nothing, `path` stays as it was.
    """
    partial = path.with_name(belongings_lib.PARTIAL_PREFIX + path.name)
    try:
        yield partial
        with contextlib.suppress(FileNotFoundError):
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file atomically: a reader sees the old file or the new one."""
    with written_whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
