"""The loss scaler's state machine, step by step, with planted faults."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.recorded_optimizer import RecordedOptimizer


def drive(optimizer, gradients, jit_compile=False, losses=None):
    """Applies a list of unscaled gradients to one weight; returns the weight.

    The losses are all 1, unless others are given; None takes a step without telling its loss.
    """
    weight = keras.Variable([1.0], name="weight")
    optimizer.build([weight])

    @tf.function(jit_compile=jit_compile)
    def step(gradient, loss):
        if loss is not None:
            optimizer.scale_loss(loss)
        optimizer.apply([tf.reshape(gradient * optimizer.dynamic_scale, [1])], [weight])

    for gradient, loss in zip(gradients, losses or len(gradients) * [1.0], strict=True):
        loss = None if loss is None else tf.constant(loss, tf.float32)
        step(tf.constant(float(gradient)), loss)
    return weight.value.numpy()[0]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_every_row_of_a_dynamic_scale(jit_compile):
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.5), initial_scale=8.0, dynamic_growth_steps=2
    )
    losses = [float(i) for i in range(7)]
    weight = drive(optimizer, [1, math.inf, 2, 3, math.nan, math.nan, 4], jit_compile, losses)
    count, rows = optimizer.history()
    assert count == 7
    assert rows["scale"].tolist() == [8, 8, 4, 4, 8, 4, 2]
    assert rows["growth_counter"].tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert rows["skipped_total"].tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert rows["skipped_in_a_row"].tolist() == [0, 1, 0, 0, 1, 2, 0]
    assert rows["learning_rate"].tolist() == [0.5] * 7
    np.testing.assert_array_equal(rows["grad_norm"], [1, np.inf, 2, 3, np.nan, np.nan, 4])
    assert rows["loss"].tolist() == losses
    assert rows["skipped_non_finite_loss"].tolist() == [0] * 7
    assert weight == 1.0 - 0.5 * (1 + 2 + 3 + 4)
    assert (optimizer.scale, optimizer.growth_counter, optimizer.grad_norm) == (2.0, 1, 4.0)
    assert (optimizer.steps_attempted, optimizer.steps_applied) == (7, 4)
    assert (optimizer.skipped_total, optimizer.skipped_in_a_row) == (3, 0)
    assert optimizer.iterations.numpy() == 4


def test_the_scale_stays_between_floor_and_ceiling():
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.0), 4.0, 1, min_scale=1.0, max_scale=6.0
    )
    drive(optimizer, [1, 1, math.inf, math.inf, math.inf])
    assert optimizer.history()[1]["scale"].tolist() == [4, 6, 6, 3, 1.5]
    assert optimizer.scale == 1.0


def test_other_factors():
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.0), 16.0, 1, growth_factor=4.0, backoff_factor=0.25
    )
    drive(optimizer, [1, math.inf, math.inf])
    assert optimizer.history()[1]["scale"].tolist() == [16, 64, 16]
    assert optimizer.scale == 4.0


def test_hysteresis_bears_skips_before_the_scale_falls():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.0), 16.0, 2, hysteresis=2)
    inf = math.inf
    drive(optimizer, [inf, 1, inf, inf, 1, 1, inf, inf])
    assert optimizer.history()[1]["scale"].tolist() == [16, 16, 16, 8, 4, 4, 8, 8]
    assert optimizer.scale == 4.0


def test_a_static_scale_stays_and_still_skips():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 1000.0, 1, dynamic=False)
    weight = drive(optimizer, [0.25, math.inf, 0.5, math.nan])
    assert weight == 0.25
    assert optimizer.history()[1]["scale"].tolist() == [1000] * 4
    assert (optimizer.skipped_total, optimizer.scale) == (2, 1000.0)


def test_an_overflow_at_the_floor_is_a_collapse_that_is_told_once_and_freezes_nothing():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0, min_scale=2.0)
    weight = drive(optimizer, [0.25, math.inf, math.nan, 0.5, math.inf, 0.125])
    assert weight == 1 - 0.25 - 0.5 - 0.125
    assert optimizer.collapsed_at == 3
    with pytest.raises(LossScaleCollapse) as raised:
        optimizer.raise_if_collapsed()
    message = str(raised.value)
    for part in (
        "at step 3 (read 3 steps later, at 6)",
        "scale 2 (floor 2)",
        "after 2 skipped steps in a row (3 skipped in all, 0 of them",
        "'weight': it holds NaN",
        "Since then 2 of 3 steps were applied, and the scale is 2 now.",
        "float32",
    ):
        assert part in message
    assert (raised.value.step, raised.value.read_at) == (3, 6)
    assert optimizer.scale == 2.0
    assert optimizer.collapsed_at is None
    optimizer.raise_if_collapsed()
    drive_again(optimizer, [0.5, math.inf])
    with pytest.raises(LossScaleCollapse, match=r"at step 8: .* holds Inf"):
        optimizer.raise_if_collapsed()


def drive_again(optimizer, gradients):
    """More steps of an optimizer that `drive` has built."""
    weights = optimizer._trainable_variables
    for gradient in gradients:
        optimizer.apply([tf.constant([gradient]) * optimizer.dynamic_scale], weights)


def test_too_many_skips_in_a_row_are_a_collapse():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), max_skipped_in_a_row=2)
    drive(optimizer, [math.inf] * 2 + [1] + [math.inf] * 2)
    optimizer.raise_if_collapsed()
    drive_more = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), max_skipped_in_a_row=2)
    drive(drive_more, [math.inf] * 3)
    with pytest.raises(LossScaleCollapse, match=r"step 3.*Inf"):
        drive_more.raise_if_collapsed()
    unlimited = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), 1.0, dynamic=False, max_skipped_in_a_row=None
    )
    drive(unlimited, [math.inf] * 250)
    unlimited.raise_if_collapsed()
    by_default = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 1.0, dynamic=False)
    drive(by_default, [math.inf] * 201)
    with pytest.raises(LossScaleCollapse, match=r"at step 201: .*scale 1 \(static\)"):
        by_default.raise_if_collapsed()


NAN, INF = math.nan, math.inf


def test_a_loss_that_is_not_finite_says_nothing_about_the_scale():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 16.0, 3, hysteresis=2)
    gradients = [0.5, NAN, INF, 0.25, NAN, INF, 0.125]
    weight = drive(optimizer, gradients, losses=[1.0, NAN, INF, 1.0, 1.0, None, 1.0])
    assert weight == 1 - 0.5 - 0.25 - 0.125
    rows = optimizer.history()[1]
    # The overflows at the fifth and the sixth step are the first and the second that count.
    assert rows["scale"].tolist() == [16, 16, 16, 16, 16, 16, 8]
    assert rows["growth_counter"].tolist() == [1, 1, 1, 2, 0, 0, 1]
    assert rows["skipped_in_a_row"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert rows["skipped_non_finite_loss"].tolist() == [0, 1, 2, 2, 2, 2, 2]
    assert (optimizer.skipped_total, optimizer.skipped_non_finite_loss) == (4, 2)


def test_a_static_scale_counts_them_too():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 16.0, dynamic=False)
    drive(optimizer, [0.5, NAN, INF, 0.25], losses=[1.0, NAN, 1.0, 1.0])
    rows = optimizer.history()[1]
    assert rows["growth_counter"].tolist() == [1, 1, 0, 1]
    assert (optimizer.skipped_total, optimizer.skipped_non_finite_loss) == (2, 1)


def test_a_loss_noted_twice_or_with_many_entries_counts_if_any_is_not_finite():
    weight = keras.Variable([1.0])
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 16.0)
    for losses in ([NAN, 1.0], [1.0, NAN], [[1.0, INF, 2.0]], [1.0, [0.0, 1.0]]):
        for loss in losses:
            assert optimizer.scale_loss(tf.constant(loss)).shape == np.shape(loss)
        optimizer.apply([tf.constant([NAN])], [weight])
    assert (optimizer.skipped_non_finite_loss, optimizer.scale) == (3, 8.0)
    # What was noted is used up: this one overflowed.
    optimizer.apply([tf.constant([NAN])], [weight])
    assert (optimizer.skipped_non_finite_loss, optimizer.scale) == (3, 4.0)


def test_a_bad_loss_in_any_microbatch_is_the_groups():
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    optimizer = tfamp.LossScaleOptimizer(inner, 8.0)
    gradients = [NAN, 0.5, 0.5, INF, INF, 0.5, 0.25, 0.75]
    drive(optimizer, gradients, losses=[NAN, 1.0, 1.0, INF, 1.0, 1.0, 1.0, 1.0])
    rows = optimizer.history()[1]
    assert rows["scale"].tolist() == [8, 8, 8, 8, 8, 8, 4, 4]
    assert rows["skipped_non_finite_loss"].tolist() == [0, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_after_many_overflows_the_scale_climbs_back(jit_compile):
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.0), 2.0**10, 50, recovery_steps=2, min_scale=1.0
    )
    drive(optimizer, [1, *8 * [INF], *19 * [1]], jit_compile)
    expected = [2.0**10, *(2.0 ** np.arange(10, 2, -1))]
    expected += list(np.repeat(2.0 ** np.arange(2, 10), 2)) + 3 * [2.0**10]
    assert optimizer.history()[1]["scale"].tolist() == expected
    # Back where it was, it grows as ever.
    assert (optimizer.scale, optimizer.growth_counter) == (2.0**10, 3)


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [
        ([1, *7 * [INF], *8 * [1]], 2.0**3),  # Too few: torch's rule.
        ([1, *4 * [INF], 1, *4 * [INF], *8 * [1]], 2.0**2),  # Not in a row.
        ([1, *8 * [INF], 1, 1, INF, *8 * [1]], 2.0**2),  # A skip ends the climb.
        ([*8 * [INF], *8 * [1]], 2.0**6),  # No clean step before: back to the start.
    ],
)
def test_when_the_scale_does_not_climb_back(pattern, scale):
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.0), 2.0**10, recovery_steps=2, min_scale=1.0
    )
    drive(optimizer, pattern)
    assert optimizer.scale == scale
    with_torchs_rule = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.0), 2.0**10, recovery_steps=None, min_scale=1.0
    )
    drive(with_torchs_rule, pattern)
    assert with_torchs_rule.scale == 2.0 ** (10 - pattern.count(INF))


def test_the_default_brings_a_scale_back_from_the_floor_in_580_steps():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.0))
    drive(optimizer, [1, *40 * [INF], *580 * [1]])
    assert optimizer.scale == 2.0**15
    with pytest.raises(LossScaleCollapse, match="at step 31 "):
        optimizer.raise_if_collapsed()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_scale_loss_is_float32_whatever_comes(dtype):
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    scaled = optimizer.scale_loss(tf.constant(4.0, dtype))
    assert scaled.dtype == tf.float32
    assert scaled.numpy() == 131072.0  # Beyond float16.


def test_accumulation_is_one_update_of_the_mean_and_an_overflow_discards_its_group_alone():
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    optimizer = tfamp.LossScaleOptimizer(inner, 8.0, 2)
    weight = drive(optimizer, [0.25, 0.75, math.inf, 9, 0.125, 0.375])
    assert weight == 1.0 - 0.5 - 0.25
    rows = optimizer.history()[1]
    assert rows["is_update"].tolist() == [0, 1] * 3
    assert rows["scale"].tolist() == [8, 8, 8, 8, 4, 4]
    np.testing.assert_array_equal(rows["grad_norm"], [np.nan, 0.5, np.nan, np.inf, np.nan, 0.25])
    assert (optimizer.steps_attempted, optimizer.steps_applied) == (3, 2)
    assert optimizer.iterations.numpy() == 2


def test_a_skip_leaves_slots_averages_and_schedule_alone():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0)
    inner = keras.optimizers.Adam(schedule, use_ema=True)
    optimizer = tfamp.LossScaleOptimizer(inner, 8.0)
    drive(optimizer, [1, 1])
    before = [v.numpy() for v in inner.variables]
    weight = optimizer._trainable_variables[0]
    optimizer.apply([tf.constant([math.inf])], [weight])
    for old, new in zip(before, inner.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    rates = optimizer.history()[1]["learning_rate"]
    np.testing.assert_allclose(rates, [1.0, 0.9, 0.8], rtol=1e-6)


def test_clipping_acts_on_the_unscaled_gradient_and_the_norm_is_before_it():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0, global_clipnorm=0.5), 1024.0)
    assert drive(optimizer, [4.0]) == 0.5
    assert optimizer.grad_norm == 4.0


def test_unscaled_optimizer_keeps_books_and_applies_what_comes():
    optimizer = RecordedOptimizer(keras.optimizers.SGD(1.0))
    assert optimizer.scale_loss(tf.constant(3.0)).numpy() == 3.0
    assert drive(optimizer, [0.5]) == 0.5
    assert math.isnan(drive(RecordedOptimizer(keras.optimizers.SGD(1.0)), [math.nan]))
    assert optimizer.grad_norm == 0.5 and not optimizer.is_scaling


def test_none_gradients_and_embeddings():
    table = keras.Variable(np.zeros((4, 2), "float32"), name="table")
    unused = keras.Variable([1.0], name="unused")
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0)
    optimizer.build([table, unused])
    slices = tf.IndexedSlices(
        tf.constant([[4.0, 0.0]] * 2), tf.constant([1, 1]), tf.constant([4, 2])
    )
    with pytest.warns(UserWarning, match="unused"):
        optimizer.apply([slices, None], [table, unused])
    assert table.numpy().tolist() == [[0, 0], [-2, 0], [0, 0], [0, 0]]
    assert optimizer.grad_norm == 2.0


def test_config_round_trip_gives_the_accumulation_back_to_the_inner_optimizer():
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.AdamW(1e-3, gradient_accumulation_steps=4),
        2.0**10, 100, dynamic=True, growth_factor=3.0, backoff_factor=0.3, min_scale=2.0,
        max_scale=2.0**20, hysteresis=3, max_skipped_in_a_row=7, recovery_steps=None, history=16,
    )  # fmt: skip
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is tfamp.LossScaleOptimizer
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["inner_optimizer"]["config"]["gradient_accumulation_steps"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_scale": 0.0}, "initial_scale"),
        ({"initial_scale": 2.0**30}, "outside"),
        ({"growth_factor": 1.0}, "growth_factor"),
        ({"backoff_factor": 1.0}, "backoff_factor"),
        ({"dynamic_growth_steps": 0}, "dynamic_growth_steps"),
        ({"min_scale": 0.0}, "min_scale"),
        ({"max_scale": math.inf}, "max_scale"),
        ({"hysteresis": 0}, "hysteresis"),
        ({"history": 0}, "history"),
        ({"max_skipped_in_a_row": 0}, "max_skipped_in_a_row"),
        ({"recovery_steps": 0}, "recovery_steps"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfamp.LossScaleOptimizer(keras.optimizers.SGD(), **arguments)


def test_compile_does_not_wrap_it_again():
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD())
    model.compile(optimizer, loss="mse")
    assert model.optimizer is optimizer


def test_a_name_or_a_config_stands_for_an_optimizer(tmp_path):
    """As in `compile`, and as the same optimizer in a saved config."""
    named = tfamp.LossScaleOptimizer("adam")
    assert type(named.inner_optimizer) is keras.optimizers.Adam
    made = tfamp.LossScaleOptimizer(keras.optimizers.Adam(name=named.inner_optimizer.name))
    assert named.get_config() | {"name": made.name} == made.get_config()
    again = tfamp.LossScaleOptimizer.from_config(named.get_config())
    assert again.get_config() == named.get_config()
    given = {"class_name": "SGD", "config": {"learning_rate": 0.5}}
    assert float(tfamp.LossScaleOptimizer(given).learning_rate) == 0.5
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(named, "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert type(loaded.inner_optimizer) is keras.optimizers.Adam
    assert loaded.steps_applied == 1


@pytest.mark.parametrize("given", ["adamm", 0.001, None, keras.optimizers.Adam])
def test_what_is_no_optimizer(given):
    with pytest.raises(ValueError, match=r"^inner_optimizer=.*: it must be a keras\.optimizers"):
        tfamp.LossScaleOptimizer(given)


@pytest.mark.parametrize("kind", [tfamp.LossScaleOptimizer, RecordedOptimizer])
def test_no_gradients_are_no_step(kind):
    """As with Keras's own optimizers, whose `apply` does nothing for an empty list."""
    optimizer = kind(keras.optimizers.SGD(0.5))
    optimizer.apply([], [])
    assert optimizer.steps_attempted == 0
    weight = keras.Variable([1.0])
    optimizer = kind(keras.optimizers.SGD(0.5))
    optimizer.build([weight])
    tf.function(lambda: optimizer.apply([]))()
    assert (optimizer.steps_attempted, weight.numpy().tolist()) == (0, [1.0])


@pytest.mark.parametrize("kind", [tfamp.LossScaleOptimizer, RecordedOptimizer])
def test_gradients_that_are_all_none(kind):
    with pytest.raises(ValueError, match=r"no gradient for any of 1 variables: all are None\. Com"):
        kind(keras.optimizers.SGD(0.5)).apply([None], [keras.Variable([1.0])])


def test_whether_the_last_call_was_a_skip():
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    optimizer = tfamp.LossScaleOptimizer(inner, 8.0)
    weight = keras.Variable([1.0])
    found = []
    for gradient in (INF, 1.0, 1.0, 1.0):
        optimizer.apply([tf.constant([gradient])], [weight])
        found.append(bool(optimizer.has_skipped()))
    # The third call is of a group that is not complete.
    assert found == [False, True, False, False]


def test_the_books_of_an_optimizer_have_the_starts_of_its_rules():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 8.0, history=3)
    assert (optimizer.scale, optimizer.growth_counter, optimizer.history_size) == (8.0, 0, 3)
    assert (optimizer.accumulates, optimizer.accumulation_steps) == (False, 1)
    assert (optimizer.is_scaling, optimizer.notes_losses) == (True, False)
    assert tfamp.LossScaleOptimizer("sgd").scale == 2.0**15
