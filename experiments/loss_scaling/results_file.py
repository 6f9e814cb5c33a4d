"""A results file: runs that are finished are kept, so that a broken-off command goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tfamp.run import provenance
from tfamp.run.command import Given
from tfamp.run.errors import InputError, setting
from tfamp.telemetry import memory

FOLDER = Path("experiments/results/loss_scaling")

# Of what a run tells; a run that tells something else is made anew.
SCHEMA_VERSION = 1
# What files must have in common to share runs.
_ALIKE = ("schema_version", "versions", "device")


class ResultsFile:
    """What an experiment has found, in one JSON file that is written after every run.

    A run is kept where its file was made with the same settings and the same versions of what it
    stands on; else it is made anew.

    Args:
        path: The file.
        part: Name of the experiment's part, as it is typed.
        settings: `workloads`: those of each; and what else decides what the runs are.
        given: What was typed behind the part's name; `overwrite` keeps no run.
        others: Files of other parts, whose runs of the same workloads are taken too.
    """

    def __init__(
        self,
        path: Path,
        part: str,
        settings: Mapping[str, Any],
        given: Given,
        others: Iterable[Path] = (),
    ) -> None:
        self.path = path
        # As a reader of the file would type it, whoever made it.
        typed = " ".join(["scripts/python.sh -m experiments.loss_scaling", part, *given.arguments])
        self.content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "command": typed,
            "device": memory.described_device(),
            "versions": provenance.versions(),
            "settings": json.loads(json.dumps(settings)),
        }
        self.runs: dict[str, Any] = {}
        self._theirs: dict[str, Any] = {}
        if given["overwrite"]:
            return
        own = _read(path)
        if own is not None and self._is_like(own) and own["settings"] == self.content["settings"]:
            self.runs = dict(own["runs"])
        for other in filter(None, map(_read, others)):
            if self._is_like(other):
                self._take(other)

    def _is_like(self, other: Mapping[str, Any]) -> bool:
        return all(other[key] == self.content[key] for key in _ALIKE)

    def _take(self, other: Mapping[str, Any]) -> None:
        here, there = (one["settings"]["workloads"] for one in (self.content, other))
        shared = {workload["workload"] for workload in here if workload in there}
        self._theirs |= {
            name: run
            for name, run in other["runs"].items()
            if run["workload"] in shared and "scaling" in run
        }

    def has(self, name: str) -> bool:
        """Whether a run is there."""
        return name in self.runs or name in self._theirs

    def run(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A run: as it is in a file, or made and written."""
        if name not in self.runs:
            self.runs[name] = self._theirs[name] if name in self._theirs else make()
            self.write({})
        return self.runs[name]

    def write(self, summary: Mapping[str, Any]) -> None:
        """Writes the file, whole or not at all.

        Args:
            summary: What the runs say together, by key.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        content = {**self.content, **summary, "runs": self.runs}
        unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        unfinished.replace(self.path)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        missing = {*_ALIKE, "settings", "runs"} - set(found)
    except (ValueError, TypeError) as error:
        raise _no_results(path, str(error)) from error
    if missing:
        raise _no_results(path, f"it has no {', '.join(sorted(missing))}")
    return found


def _no_results(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is no results file of the lab: {why}. A folder holds results of the lab's own, or "
        f"none. Remove the file, or set another folder in {setting('out')}."
    )
