"""What makes a finished run another one than a sweep wants."""

from __future__ import annotations

import json
import re

import pytest

from tfamp.run.errors import InputError
from tfamp.sweeping import cells as cells_lib
from tfamp.sweeping.differences import Difference

ONE = {"policies": ("float32",)}


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        (Difference("epochs", 9, 5), "epochs 9 there and 5 here"),
        (Difference("steps_per_epoch", 4, None), "steps_per_epoch 4 there and left open here"),
    ],
)
def test_how_a_difference_is_told(difference, told):
    assert str(difference) == told


def test_where_a_run_lies_is_no_difference(make, finish):
    (cell,) = make("--overwrite", **ONE)
    finish(cell, logdir="/elsewhere", run_name="other", overwrite=False)
    assert cell.is_finished()


@pytest.mark.parametrize(
    ("changes", "conflict"),
    [
        ({"epochs": 9}, {"epochs": (9, 5)}),
        (
            {"learning_rate": 0.2, "tf32": False},
            {"tf32": (False, True), "learning_rate": (0.2, 0.1)},
        ),
        ({"jit_compile": False}, {"jit_compile": (False, True)}),
        ({"float32_layers": ["head"]}, {"float32_layers": (["head"], [])}),
        ({"of_another_version": 3}, {"of_another_version": (3, "absent")}),
        ({"schema_version": 2}, {"schema_version": (2, 1)}),
    ],
)
def test_a_finished_run_of_another_config(changes, conflict, make, finish):
    (cell,) = make(**ONE)
    finish(cell, **changes)
    assert {each.what: (each.there, each.here) for each in cell.conflict()} == conflict
    assert not cell.is_finished()


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"schema_version": 1}', "null"])
def test_a_finished_run_with_no_config(content, make, finish):
    (cell,) = make(**ONE)
    finish(cell)
    cell.directory.config.unlink()
    if content is not None:
        cell.directory.config.write_text(content)
    assert [each.what for each in cell.conflict()] == ["config.json"]
    assert not cell.is_finished()


@pytest.mark.parametrize(
    ("here", "there", "asked_there", "is_same"),
    [
        ((), 78, (), True),
        # 78 steps that were asked for are not the whole set, whatever its size.
        ((), 78, ("--steps_per_epoch=78",), False),
        (("--steps_per_epoch=78",), 78, ("--steps_per_epoch=78",), True),
        (("--steps_per_epoch=78",), 77, ("--steps_per_epoch=77",), False),
        # Whole executions only.
        (("--steps_per_epoch=78", "--steps_per_execution=5"), 75, (), True),
        (("--steps_per_epoch=78", "--steps_per_execution=5"), 78, (), False),
        # A command line that cannot be read says nothing.
        ((), 78, ("--flagfile=gone",), False),
    ],
)
def test_steps_an_epoch(here, there, asked_there, is_same, make, finish):
    (cell,) = make(*here, **ONE)
    finish(cell, command_line=("train", *asked_there), steps_per_epoch=there)
    assert cell.is_finished() is is_same
    assert [each.what for each in cell.conflict()] == ([] if is_same else ["steps_per_epoch"])


@pytest.mark.parametrize(
    ("asked", "is_same"),
    [({}, True), ({"epochs": 5}, True), ({"steps_per_epoch": 78}, False), (None, False)],
)
def test_what_a_run_decided_is_told_from_what_it_was_asked(asked, is_same, make, finish):
    """78 steps that were asked for are not the whole set."""
    (cell,) = make(**ONE)
    finish(cell, command_line=("script", "--no_flag_of=ours"), steps_per_epoch=78)
    record = json.loads(cell.directory.config.read_text())
    added = {} if asked is None else {"asked": asked}
    cell.directory.config.write_text(json.dumps(record | added))
    assert cell.is_finished() is is_same


def test_where_a_chosen_scale_began_is_left_to_the_run(make, finish):
    auto, dynamic = make(policies=("float16",), loss_scales=("auto", "dynamic"))
    for cell in (auto, dynamic):
        finish(cell, initial_loss_scale=64.0)
    assert auto.is_finished()
    assert [each.what for each in dynamic.conflict()] == ["initial_loss_scale"]


def test_no_limit_is_asked_for_and_not_left_open(make, finish):
    (cell,) = make("--max_skipped_in_a_row=none", policies=("float16",))
    finish(cell, max_skipped_in_a_row=200)
    assert [each.what for each in cell.conflict()] == ["max_skipped_in_a_row"]


def write_model(tmp_path, text):
    (tmp_path / "net.py").write_text("import blocks\n")
    (tmp_path / "blocks.py").write_text(text)
    return {"models": (f"{tmp_path}/net.py:build",)}


def record_content(cell):
    record = json.loads(cell.directory.config.read_text())
    cell.directory.config.write_text(json.dumps(record | {"model_sha256": cell.model_sha256}))


def test_an_older_run_that_did_not_record_its_models_content_is_finished(make, finish, tmp_path):
    (cell,) = make(**ONE, **write_model(tmp_path, "A = 1"))
    finish(cell)
    assert cell.is_finished()


def test_a_config_without_todays_newest_settings_has_their_defaults(make, finish):
    (cell,) = make("--ema_momentum=0.5", **ONE)
    finish(cell)
    record = json.loads(cell.directory.config.read_text())
    for name in ("momentum", "label_smoothing", "ema_momentum"):
        del record["config"][name]
    cell.directory.config.write_text(json.dumps(record))
    assert cell.conflict() == [Difference("ema_momentum", None, 0.5)]


def test_a_finished_run_of_a_model_that_was_edited_since(make, finish, tmp_path):
    (cell,) = make(**ONE, **write_model(tmp_path, "A = 1"))
    finish(cell)
    record_content(cell)
    (same,) = make(**ONE, **write_model(tmp_path, "A = 1"))
    assert same.is_finished()
    (edited,) = make(**ONE, **write_model(tmp_path, "A = 2"))
    assert not edited.is_finished()
    there, here = (c.model_sha256["blocks.py"][:12] for c in (cell, edited))
    (difference,) = edited.conflict()
    assert difference == Difference("blocks.py", f"sha256 {there}", f"sha256 {here}", True)
    told = f"the content of blocks.py, sha256 {there} there and sha256 {here} here"
    assert str(difference) == told
    with pytest.raises(InputError, match=re.escape(f"{edited.directory.path} ({told})")):
        cells_lib.check_on_disk([edited], overwrite=False)
    cells_lib.check_on_disk([edited], overwrite=True)
