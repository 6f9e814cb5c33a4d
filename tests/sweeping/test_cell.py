from __future__ import annotations

import os

import pytest

ONE = {"policies": ("float32",)}


def test_a_cell_that_never_ran(make):
    (cell,) = make(**ONE)
    assert not cell.is_finished()
    assert cell.conflict() == []
    assert cell.seconds_on_disk() is None


def test_a_finished_cell(make, finish):
    (cell,) = make("--profile_steps=1,2", "--float32_layers=a,b", "--steps_per_epoch=4", **ONE)
    finish(cell)
    assert cell.is_finished()
    assert cell.conflict() == []


def test_how_long_a_finished_cell_took(make, finish):
    (cell,) = make(**ONE)
    finish(cell)
    os.utime(cell.directory.config, (100.0, 100.0))
    os.utime(cell.directory.result, (130.5, 130.5))
    assert cell.seconds_on_disk() == 30.5


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_cell_that_ended_otherwise_is_run_again(status, make, finish):
    (cell,) = make(**ONE)
    finish(cell, status=status, epochs=9)
    assert not cell.is_finished()
    assert cell.conflict() == []
