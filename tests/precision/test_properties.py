"""Whatever the settings and the gradients: the state machine of the docstring, row by row."""

import dataclasses
import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tfamp
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.scale_machine import ScaleState, after_step, is_collapse
from tfamp.run.scale_rules import ScaleRules

STEPS = 40
COUNTERS = ("growth_counter", "skipped_total", "skipped_in_a_row", "skipped_non_finite_loss")
# Gradients of 1 at a learning rate of 2^-6: the weight says exactly how many were applied.
RATE = 2.0**-6

# Powers of two and others; each combination is traced once and driven with many patterns.
RULES = [
    {"initial_scale": 8.0, "dynamic_growth_steps": 3, "min_scale": 1.0, "max_scale": 64.0},
    {"initial_scale": 2.0**15, "dynamic_growth_steps": 1},
    {"initial_scale": 100.0, "dynamic_growth_steps": 2, "growth_factor": 1.7,
     "backoff_factor": 0.3, "min_scale": 0.1, "max_scale": 1000.0},
    {"initial_scale": 2.0**10, "dynamic_growth_steps": 4, "hysteresis": 3, "min_scale": 64.0},
    {"initial_scale": 16.0, "dynamic_growth_steps": 2, "max_skipped_in_a_row": 4},
    {"initial_scale": 16.0, "dynamic_growth_steps": 2, "hysteresis": 2,
     "max_skipped_in_a_row": 1, "min_scale": 8.0, "max_scale": 32.0},
    {"initial_scale": 1000.0, "dynamic_growth_steps": 2, "dynamic": False},
    {"initial_scale": 64.0, "dynamic_growth_steps": 2, "dynamic": False,
     "max_skipped_in_a_row": 2},
    {"initial_scale": 2.0**12, "dynamic_growth_steps": 7, "recovery_steps": 2, "min_scale": 0.5},
    {"initial_scale": 300.0, "dynamic_growth_steps": 5, "recovery_steps": 3, "growth_factor": 1.9,
     "backoff_factor": 0.7, "min_scale": 1.0, "max_scale": 1000.0, "hysteresis": 2},
    {"initial_scale": 2.0**12, "dynamic_growth_steps": 7, "recovery_steps": None,
     "min_scale": 0.5},
]  # fmt: skip


@dataclasses.dataclass
class Model:
    """The class docstring of LossScaleOptimizer in plain Python."""

    initial_scale: float
    dynamic_growth_steps: int
    dynamic: bool = True
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    min_scale: float = 2.0**-14
    max_scale: float = 2.0**24
    hysteresis: int = 1
    max_skipped_in_a_row: int | None = 200
    recovery_steps: int | None = 20

    def __post_init__(self):
        self.scale = self.last_clean_scale = rounded(self.initial_scale)
        self.growth_counter = self.attempted = self.skipped_total = self.skipped_in_a_row = 0
        self.skipped_non_finite_loss = 0
        self.skips_since_growth = self.overflows_in_a_row = 0
        self.recovery_scale = None
        self.collapsed_at = None

    def step(self, is_finite, is_loss_finite=True):
        """One call of apply; returns the row."""
        before = self.scale
        self.attempted += 1
        if is_finite:
            self.clean()
        else:
            self.skip(is_loss_finite)
        return (
            before,
            self.growth_counter,
            self.skipped_total,
            self.skipped_in_a_row,
            self.skipped_non_finite_loss,
        )

    def clean(self):
        self.skipped_in_a_row = self.overflows_in_a_row = 0
        self.growth_counter += 1
        if not self.dynamic:
            return
        self.last_clean_scale = self.scale
        is_climbing = self.recovery_scale is not None and self.recovery_scale > self.scale
        steps, ceiling = self.dynamic_growth_steps, self.max_scale
        if is_climbing:
            steps, ceiling = min(steps, self.recovery_steps), self.recovery_scale
        else:
            self.recovery_scale = None
        if self.growth_counter >= steps:
            self.growth_counter = self.skips_since_growth = 0
            self.scale = rounded(min(rounded(self.scale * self.growth_factor), ceiling))

    def skip(self, is_loss_finite):
        self.skipped_total += 1
        self.skipped_in_a_row += 1
        limit = self.max_skipped_in_a_row
        collapses = limit is not None and self.skipped_in_a_row > limit
        if not is_loss_finite:
            self.skipped_non_finite_loss += 1
        else:
            self.growth_counter = 0
        if is_loss_finite and self.dynamic:
            collapses |= self.scale <= rounded(self.min_scale)
            self.overflows_in_a_row += 1
            is_long = self.recovery_steps is not None and self.overflows_in_a_row >= 8
            self.recovery_scale = self.last_clean_scale if is_long else None
            self.skips_since_growth += 1
            if self.skips_since_growth >= self.hysteresis:
                self.scale = rounded(max(rounded(self.scale * self.backoff_factor), self.min_scale))
        if collapses and self.collapsed_at is None:
            self.collapsed_at = self.attempted


def rounded(value):
    return float(np.float32(value))


@functools.cache
def driver(rules_index, jit_compile):
    return traced(RULES[rules_index], jit_compile)


def traced(rules, jit_compile=False):
    """An optimizer over one weight, and a traced function that drives it from its start."""
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(RATE), **rules, history=STEPS)
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    state = [
        *optimizer.variables,
        optimizer._collapse.facts,
        optimizer._record.history.count,
        weight,
    ]
    start = [variable.numpy() for variable in state]

    @tf.function(jit_compile=jit_compile)
    def drive(pattern):
        for step in pattern:
            optimizer.scale_loss(step[1])
            gradient = step[0] * optimizer.dynamic_scale
            optimizer.apply([tf.reshape(gradient, [1])], [weight])

    def from_start(pattern):
        for variable, value in zip(state, start, strict=True):
            variable.assign(value)
        drive(tf.constant(pattern, tf.float32))
        return optimizer, float(weight.numpy()[0])

    return from_start


# Mostly finite, mostly not, and anything between; runs of both kinds.
# The factor of each step's gradient, and its loss.
KINDS = st.sampled_from(
    [
        *3 * [(1.0, 1.0)], (math.inf, 1.0), (-math.inf, 0.0), (math.nan, 1.0),
        (math.nan, math.nan), (math.inf, -math.inf), (1.0, math.inf),
    ]
)  # fmt: skip
RUNS = st.lists(st.tuples(KINDS, st.integers(1, 12)), min_size=STEPS, max_size=STEPS)
PATTERNS = RUNS.map(lambda runs: [kind for kind, length in runs for _ in range(length)][:STEPS])


@pytest.mark.parametrize("rules_index", range(len(RULES)))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(pattern=PATTERNS)
def test_every_row_is_the_models(rules_index, pattern):
    assert_rows_are_the_models(RULES[rules_index], pattern, driver(rules_index, False))


@st.composite
def any_rules(draw):
    low = 2.0 ** draw(st.integers(-20, 10))
    initial = low * draw(st.floats(1.0, 2.0**10, width=32))
    return {
        "initial_scale": initial,
        "dynamic_growth_steps": draw(st.integers(1, 9)),
        "dynamic": draw(st.sampled_from([True, True, True, False])),
        "growth_factor": draw(st.floats(1.0, 8.0, exclude_min=True)),
        "backoff_factor": draw(st.floats(2.0**-100, 1.0, exclude_max=True)),
        "min_scale": low,
        "max_scale": initial * draw(st.floats(1.0, 2.0**10)),
        "hysteresis": draw(st.integers(1, 4)),
        "max_skipped_in_a_row": draw(st.sampled_from([None, None, 1, 5])),
        "recovery_steps": draw(st.sampled_from([None, 1, 2, 3, 20])),
    }


# The pure rule, step by step: nothing is traced.
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(rules=any_rules(), pattern=PATTERNS)
def test_the_rule_is_the_models_under_any_rules(rules, pattern):
    model, rules = Model(**rules), ScaleRules(**rules)
    state = first_state(rules)
    for factor, loss in pattern:
        before, collapsed_at = state, model.collapsed_at
        is_finite, is_loss_finite = math.isfinite(factor), math.isfinite(loss)
        model.step(is_finite, is_loss_finite)
        state = after_step(rules, before, tf.constant(is_finite), tf.constant(is_loss_finite))
        for name in ("scale", "attempted", *COUNTERS):
            assert getattr(state, name).numpy() == getattr(model, name), name
        assert [tensor.dtype for tensor in state] == [tensor.dtype for tensor in before]
        if not is_finite and collapsed_at is None:
            collapses = is_collapse(rules, before, state, tf.constant(is_loss_finite))
            assert collapses.numpy() == (model.collapsed_at is not None)


def first_state(rules):
    scale, none = tf.constant(rules.initial_scale, tf.float32), tf.constant(0, tf.int64)
    moving = {"scale": scale, "last_clean_scale": scale, "recovery_scale": tf.constant(0.0)}
    moving["hysteresis_left"] = tf.constant(rules.hysteresis, tf.int64)
    return ScaleState(**dict.fromkeys(ScaleState._fields, none) | moving)


def assert_rows_are_the_models(rules, pattern, drive):
    optimizer, weight = drive(pattern)
    model = Model(**rules)
    expected = [model.step(math.isfinite(factor), math.isfinite(loss)) for factor, loss in pattern]
    count, rows = optimizer.history()
    assert count == STEPS
    measured = list(zip(*(rows[name].tolist() for name in ("scale", *COUNTERS)), strict=True))
    assert measured == expected
    assert optimizer.scale == model.scale
    low, high = optimizer.rules.min_scale, optimizer.rules.max_scale
    if model.dynamic:
        assert all(rounded(low) <= scale <= rounded(high) for scale in rows["scale"])
    else:
        assert set(rows["scale"].tolist()) == {rules["initial_scale"]}
    assert optimizer.steps_attempted == STEPS == model.attempted
    assert optimizer.steps_applied + optimizer.skipped_total == STEPS
    assert optimizer.iterations.numpy() == optimizer.steps_applied
    # Never anything but the applied gradients, each of which is 1 after unscaling.
    np.testing.assert_allclose(weight, -RATE * optimizer.steps_applied, rtol=1e-5)
    assert optimizer.collapsed_at == model.collapsed_at
    if model.collapsed_at:
        with pytest.raises(LossScaleCollapse, match=rf"at step {model.collapsed_at}\b"):
            optimizer.raise_if_collapsed()
    # Once: training goes on.
    optimizer.raise_if_collapsed()


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(pattern=PATTERNS)
def test_xla_takes_the_same_steps(pattern):
    optimizer, weight = driver(9, jit_compile=False)(pattern)
    rows, scale = optimizer.history()[1], optimizer.scale
    compiled, compiled_weight = driver(9, jit_compile=True)(pattern)
    for name, column in compiled.history()[1].items():
        if name not in ("loss", "grad_norm"):
            np.testing.assert_array_equal(column, rows[name], err_msg=name)
    assert compiled.scale == scale
    np.testing.assert_allclose(compiled_weight, weight, rtol=1e-6)
