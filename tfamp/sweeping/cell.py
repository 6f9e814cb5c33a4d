"""A cell of a sweep: one training, its command, and whether it is finished on disk."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.sweeping.differences import Difference, differences


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
        return self.directory.is_completed() and not self.conflict()

    def conflict(self) -> list[Difference]:
        """In what a completed run of this name is another than this cell's.

        Empty where no run is completed or it is this cell's own.

        Raises:
            InputError: The run on disk cannot be read.
        """
        if not self.directory.is_completed():
            return []
        return differences(self.directory.config, self.config, self.model_sha256)

    def seconds_on_disk(self) -> float | None:
        """Roughly how long a finished run took, less its imports and the loading of data."""
        try:
            done, began = self.directory.result.stat(), self.directory.config.stat()
        except OSError:
            return None
        return max(0.0, done.st_mtime - began.st_mtime)
