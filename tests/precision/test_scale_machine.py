"""The rule of the loss scale by itself: from state to state, in numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfamp.precision import scale_machine
from tfamp.precision.scale_machine import ScaleState
from tfamp.run.scale_rules import ScaleRules

# A step is clean, an overflow, or a skip whose own loss was not finite.
KINDS = {"c": (True, True), "o": (False, True), "n": (False, False)}


def start(rules, **values):
    state = {
        "scale": rules.initial_scale,
        "hysteresis_left": rules.hysteresis,
        "last_clean_scale": rules.initial_scale,
    } | values
    floats = ("scale", "last_clean_scale", "recovery_scale")
    return ScaleState(
        **{
            name: tf.constant(state.get(name, 0), tf.float32 if name in floats else tf.int64)
            for name in ScaleState._fields
        }
    )


def driven(rules, steps, **values):
    """The states after steps such as "cco", as lists by field, and at which steps it collapsed."""
    state, states, collapses = start(rules, **values), [], []
    for i, kind in enumerate(steps):
        is_finite, is_loss_finite = map(tf.constant, KINDS[kind])
        before = state
        state = scale_machine.after_step(rules, before, is_finite, is_loss_finite)
        states.append(state)
        for name, old, new in zip(ScaleState._fields, before, state, strict=True):
            assert old.dtype == new.dtype and new.shape == (), name
        if not KINDS[kind][0] and scale_machine.is_collapse(rules, before, state, is_loss_finite):
            collapses.append(i)
    columns = {
        name: [getattr(each, name).numpy().item() for each in states] for name in ScaleState._fields
    }
    return columns, collapses


def test_every_counter_of_a_moving_scale():
    rules = ScaleRules(initial_scale=8.0, dynamic_growth_steps=2, hysteresis=2, min_scale=1.0,
                       max_skipped_in_a_row=2)  # fmt: skip
    columns, collapses = driven(rules, "ccnoocnoc")
    assert columns == {
        "scale": [8, 16, 16, 16, 8, 8, 8, 4, 4],
        "growth_counter": [1, 0, 0, 0, 0, 1, 1, 0, 1],
        "attempted": [1, 2, 3, 4, 5, 6, 7, 8, 9],
        "skipped_total": [0, 0, 1, 2, 3, 3, 4, 5, 5],
        "skipped_in_a_row": [0, 0, 1, 2, 3, 0, 1, 2, 0],
        "skipped_non_finite_loss": [0, 0, 1, 1, 1, 1, 2, 2, 2],
        # Back at two by the growth alone, not by a clean step.
        "hysteresis_left": [2, 2, 2, 1, 0, 0, 0, 0, 0],
        "overflows_in_a_row": [0, 0, 0, 1, 2, 0, 0, 1, 0],
        "last_clean_scale": [8, 8, 8, 8, 8, 8, 8, 8, 4],
        "recovery_scale": [0] * 9,
    }
    # At the third skip in a row, of whatever kind.
    assert collapses == [4]


def test_a_static_scale_counts_and_moves_nothing():
    rules = ScaleRules(initial_scale=8.0, dynamic_growth_steps=1, dynamic=False,
                       max_skipped_in_a_row=2)  # fmt: skip
    columns, collapses = driven(rules, "ccnocooo")
    assert columns["scale"] == columns["last_clean_scale"] == [8] * 8
    assert columns["growth_counter"] == [1, 2, 2, 0, 1, 0, 0, 0]
    assert columns["skipped_in_a_row"] == [0, 0, 1, 2, 0, 1, 2, 3]
    assert columns["overflows_in_a_row"] == columns["recovery_scale"] == [0] * 8
    assert columns["hysteresis_left"] == [1] * 8
    # Not at its scale, which a floor of 2^-14 does not hold, but at the third skip in a row.
    assert collapses == [7]


def test_the_scale_stops_at_its_floor_and_its_ceiling():
    rules = ScaleRules(initial_scale=4, dynamic_growth_steps=1, min_scale=3, max_scale=6,
                       max_skipped_in_a_row=None)  # fmt: skip
    columns, collapses = driven(rules, "ccoono")
    assert columns["scale"] == [6, 6, 3, 3, 3, 3]
    # At the floor already, and not for a loss that was not finite.
    assert collapses == [3, 5]


def test_other_factors_are_rounded_once():
    rules = ScaleRules(initial_scale=13.0, dynamic_growth_steps=1, growth_factor=1.9,
                       backoff_factor=0.8, min_scale=1.0)  # fmt: skip
    # The factors are no float32 numbers: rounded before the product they give its neighbour.
    for steps, exact, twice in (("c", 13 * 1.9, [13.0, 1.9]), ("o", 13 * 0.8, [13.0, 0.8])):
        (scale,) = driven(rules, steps)[0]["scale"]
        assert scale == np.float32(exact) != np.prod(np.array(twice, "float32"))


RECOVERING = ScaleRules(initial_scale=2.0**10, dynamic_growth_steps=50, recovery_steps=2,
                        min_scale=2.0)  # fmt: skip


def test_eight_overflows_make_the_scale_climb_back_to_where_it_was():
    columns, _ = driven(RECOVERING, "c" + 8 * "o" + 19 * "c")
    assert columns["recovery_scale"][7:9] == [0, 2.0**10]
    climb = [2.0 ** (2 + i // 2) for i in range(1, 17)]
    assert columns["scale"][9:25] == climb
    # Until it is there, and no longer.
    assert columns["recovery_scale"][9:27] == 16 * [2.0**10] + 2 * [0]
    assert columns["scale"][25:] == 3 * [2.0**10]
    assert columns["growth_counter"][9:] == [*8 * [1, 0], 1, 2, 3]


@pytest.mark.parametrize(
    ("steps", "recovery_scale"),
    [
        ("c" + 7 * "o", 0),
        ("c" + 7 * "o" + "nno", 2.0**10),  # A bad loss neither counts nor breaks the row.
        (8 * "o", 2.0**10),  # Without a clean step: the initial scale.
        ("c" + 8 * "o" + "n", 2.0**10),
        ("c" + 8 * "o" + "co", 0),  # An overflow ends the climb.
        ("c" + 4 * "o" + "c" + 4 * "o", 0),
        ("c" + 12 * "o", 2.0**10),
    ],
)
def test_when_there_is_somewhere_to_climb_to(steps, recovery_scale):
    assert driven(RECOVERING, steps)[0]["recovery_scale"][-1] == recovery_scale


def test_a_climb_ends_at_the_old_scale_and_grows_no_slower_than_ever():
    rules = ScaleRules(initial_scale=5.0, dynamic_growth_steps=3, recovery_steps=20, min_scale=0.01)
    columns, _ = driven(rules, "c" + 8 * "o" + 30 * "c")
    rising = [scale for scale in columns["scale"][9:] if scale > 2.5]
    # By 2 from 5 * 2^-8: the last growth of the climb would be to 5 exactly; 3 steps a growth.
    assert rising[:4] == [5.0, 5.0, 5.0, 10.0]
    assert columns["growth_counter"][9:15] == [1, 2, 0, 1, 2, 0]


def test_a_climb_does_not_overshoot():
    rules = ScaleRules(initial_scale=5.0, dynamic_growth_steps=50, recovery_steps=1,
                       growth_factor=3.0, min_scale=0.01)  # fmt: skip
    columns, _ = driven(rules, "c" + 8 * "o" + 8 * "c")
    assert columns["scale"][-3:] == [5.0, 5.0, 5.0]


def test_torchs_rule_knows_no_climb():
    rules = ScaleRules(initial_scale=2.0**10, dynamic_growth_steps=2, recovery_steps=None,
                       min_scale=2.0)  # fmt: skip
    columns, _ = driven(rules, "c" + 8 * "o" + 4 * "c")
    assert columns["recovery_scale"] == [0] * 13
    assert columns["scale"][9:] == [4, 8, 8, 16]
