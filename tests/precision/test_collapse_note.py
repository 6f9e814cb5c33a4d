"""The first collapse on the device: what it was, until it is taken."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfamp.precision.collapse_note import CollapseNote
from tfamp.precision.state_variables import StateVariables
from tfamp.run.scale_rules import ScaleRules


def made(**rules):
    def add_variable(shape, initializer, dtype, aggregation, name):
        return keras.Variable(initializer(shape, dtype=dtype), dtype=dtype, name=name)

    rules = ScaleRules(initial_scale=8.0, min_scale=0.5, **rules)
    state = StateVariables(add_variable, 8.0, 1)
    note = CollapseNote(state, rules)
    note.name_weights([keras.Variable([1.0], name="first"), tf.Variable([1.0], name="second")])
    return state, note


def skip(state, note, collapses=True, is_loss_finite=True, culprit=1, has_nan=False):
    before = state.scale_state()
    after = before._replace(
        scale=before.scale / 2,
        attempted=before.attempted + 1,
        skipped_total=before.skipped_total + 1,
        skipped_in_a_row=before.skipped_in_a_row + 1,
    )
    flags = [tf.constant(flag) for flag in (collapses, is_loss_finite, has_nan)]
    note.write(flags[0], before, after, flags[1], tf.constant(culprit, tf.int64), flags[2])
    state.become(after, before)


def facts(collapse):
    names = ("step", "read_at", "variable", "has_nan", "is_loss_finite")
    return tuple(getattr(collapse, name) for name in names)


def test_a_skip_that_is_none_leaves_no_note():
    state, note = made()
    skip(state, note, collapses=False)
    assert note.read_step() is None and note.read() is None and note.take() is None
    assert int(state.read("culprit")) == -1


def test_the_first_stays_until_it_is_taken():
    state, note = made()
    skip(state, note, collapses=False)
    skip(state, note, culprit=1, has_nan=True)
    skip(state, note, culprit=0, is_loss_finite=False)
    state.skipped_non_finite_loss.assign(1)
    assert note.read_step() == 2
    assert facts(note.read()) == (2, 3, "second:0", True, True)
    text = str(note.read())
    for part in (
        "at scale 4 (floor 0.5), after 2 skipped steps in a row (3 skipped in all, 1 of them",
        "(read 1 step later, at 3)",
    ):
        assert part in text
    # The one since then was a skip too.
    assert "applied" not in text
    assert facts(note.take()) == (2, 3, "second:0", True, True)
    assert note.read_step() is None and note.take() is None
    assert int(state.read("collapsed_at")) == 0
    skip(state, note, culprit=0, is_loss_finite=False)
    assert facts(note.take()) == (4, 4, "first", False, False)


def test_what_was_applied_since_is_told():
    state, note = made()
    skip(state, note)
    state.attempted.assign(4)
    state.scale.assign(2.0)
    assert "Since then 3 of 3 steps were applied, and the scale is 2 now." in str(note.read())


def test_a_static_scale_has_no_floor():
    state, note = made(dynamic=False)
    skip(state, note)
    assert "at scale 8 (static)" in str(note.read())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_is_noted_inside_a_compiled_step(jit_compile):
    state, note = made()
    tf.function(lambda: skip(state, note), jit_compile=jit_compile)()
    assert facts(note.read()) == (1, 1, "second:0", False, True)
    np.testing.assert_array_equal(note.facts.numpy(), [1, 8, 1, 1, 1])
    note.forget()
    np.testing.assert_array_equal(note.facts.numpy(), np.zeros(5))
