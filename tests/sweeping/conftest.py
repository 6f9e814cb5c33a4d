from __future__ import annotations

import pytest

from tests.reporting.made_runs import result_of
from tests.sweeping.stand_ins import stand_in_command
from tfamp.run.directory import write_json
from tfamp.run.run_config import RunConfig
from tfamp.sweeping import cells as cells_lib
from tfamp.sweeping.matrix import Matrix


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
            return stand_in_command(cell, behaviour)

        return command

    return command_of


@pytest.fixture
def finish():
    """Lays down what a completed run of a cell leaves, less or more a few fields of its config."""

    def lay_down(cell, command_line=("train",), schema_version=1, status="completed", **changes):
        cell.directory.path.mkdir(parents=True)
        config = RunConfig(config=cell.config.to_json() | changes, command_line=command_line)
        written = config.to_json() | {"schema_version": schema_version}
        write_json(cell.directory.config, written)
        write_json(cell.directory.result, result_of(cell.config, status=status).to_json())

    return lay_down
