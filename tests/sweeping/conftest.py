from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tfamp.sweeping import cells as cells_lib
from tfamp.sweeping.matrix import Matrix

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture
def make(tmp_path):
    """Cells of a matrix below a folder of the test's own."""

    def cells(*train_flags, **axes):
        return cells_lib.make(Matrix(**axes), str(tmp_path / "runs"), train_flags)

    return cells


@pytest.fixture
def stand_in():
    """Makes the command of a cell's stand-in; behaviours by policy, `completes` elsewhere."""

    def command_of(**behaviours):
        def command(cell):
            behaviour = behaviours.get(cell.config.policy, "completes")
            config = json.dumps(cell.config.to_json())
            place = str(cell.directory.path)
            return [sys.executable, "-I", "-S", "-u", str(STAND_IN), place, config, behaviour]

        return command

    return command_of


@pytest.fixture
def finish():
    """Lays down what a completed run of a cell leaves, less or more a few fields of its config."""

    def lay_down(cell, command_line=("train",), schema_version=1, status="completed", **changes):
        cell.directory.path.mkdir(parents=True)
        record = {
            "schema_version": schema_version,
            "config": cell.config.to_json() | changes,
            "command_line": list(command_line),
        }
        cell.directory.config.write_text(json.dumps(record))
        cell.directory.result.write_text(json.dumps({"written_by": "tfamp", "status": status}))

    return lay_down
