"""Where a report's numbers come from: versions, devices, revisions, seeds and command lines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from tfamp.reporting.groups import Comparisons
from tfamp.reporting.runs import FinishedRun
from tfamp.run.command import has_scripts

# A command's module, and how a checkout's script of it begins.
_SCRIPTS = {
    "train.py": ["scripts/train.sh"],
    "sweep.py": ["scripts/sweep.sh"],
    "report.py": ["scripts/report.sh"],
    "fidelity.py": ["scripts/fidelity.sh"],
}


def collect(logdir: Path, comparisons: Comparisons) -> dict[str, Any]:
    """Versions, devices, revisions, seeds and command lines of the runs that were used."""
    runs = [run for group in comparisons.groups for run in group.runs]
    sweeps = (command(sweep.get("command_line")) for _, sweep in read_sweeps(logdir))
    return {
        "versions": versions(runs),
        "devices": distinct(run.result.device for run in runs),
        "git_revisions": distinct(run.git_revision or "unknown" for run in runs),
        "seeds": sorted({run.seed for run in runs if run.seed is not None}),
        "sweeps": [line for line in sweeps if line is not None],
        "commands": {run.directory: command(run.command_line) for run in runs},
    }


def command(arguments: Any) -> str | None:
    """A command line to copy, without the place of the program on the machine that ran it.

    Args:
        arguments: `sys.argv` of the process; None or what is no list gives None.
    """
    if not isinstance(arguments, list) or not arguments:
        return None
    program, *rest = map(str, arguments)
    name = PurePath(program)
    start = [name.name]
    if name.name in _SCRIPTS:
        # As the texts of the checkout say it: a report goes to places where no other path holds.
        module = ["python", "-m", f"tfamp.{name.stem}"]
        start = _SCRIPTS[name.name] if has_scripts() else module
    elif name.suffix == ".py":
        start = ["python", name.name]
    return shlex.join([*start, *rest])


def versions(runs: Sequence[FinishedRun]) -> dict[str, list[str]]:
    """Each package's versions, of all runs."""
    packages = distinct(name for run in runs for name in run.result.versions)
    return {
        name: distinct(run.result.versions.get(name, "absent") for run in runs) for name in packages
    }


def distinct(values: Iterable[str]) -> list[str]:
    """Each value once, in the order in which they first come."""
    return list(dict.fromkeys(values))


def read_sweeps(logdir: Path) -> list[tuple[PurePath, dict[str, Any]]]:
    """The sweep.json files that `tfamp.sweep` left below a folder.

    Returns:
        For each its folder, relative to `logdir`, and what it holds. One that cannot be read is
        left out: no figure depends on it.
    """
    found: list[tuple[PurePath, dict[str, Any]]] = []
    for path in sorted(logdir.rglob("sweep.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict):
            found.append((path.parent.relative_to(logdir), value))
    return found
