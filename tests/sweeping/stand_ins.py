"""Commands of processes that stand in for the trainer's."""

import json
import sys
from pathlib import Path

from tests.reporting.made_runs import result_of
from tfamp.run.run_config import RunConfig

STAND_IN = Path(__file__).with_name("stand_in.py")


def stand_in_command(cell, behaviour):
    """The command of a process that leaves what a run of the cell leaves, or behaves otherwise."""
    said = RunConfig(config=cell.config.to_json(), command_line=("train",))
    files = (json.dumps(file.to_json()) for file in (said, result_of(cell.config)))
    place = str(cell.directory.path)
    return [sys.executable, "-I", "-S", "-u", str(STAND_IN), place, *files, behaviour]
