"""Unscaling by hand: what comes out, what is applied, and that nothing is divided twice unseen."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tfamp.precision.recorded_optimizer import RecordedOptimizer

INF, NAN = math.inf, math.nan
KINDS = pytest.mark.parametrize("kind", ["scaled", "recorded"])
JIT = pytest.mark.parametrize("jit_compile", [False, True])


def make(kind="scaled", scale=8.0, **values):
    inner = keras.optimizers.SGD(1.0, **values)
    return tfamp.LossScaleOptimizer(inner, scale) if kind == "scaled" else RecordedOptimizer(inner)


def weight_of(optimizer, start=1.0):
    weight = keras.Variable([start], name="weight")
    optimizer.build([weight])
    return weight


def clipped_step(optimizer, weight, clip, factor=1.0):
    """One step whose gradient is `factor`, unscaled and clipped by hand; returns it unclipped."""
    with tf.GradientTape() as tape:
        scaled = optimizer.scale_loss(factor * tf.reduce_sum(weight.value))
    gradients = optimizer.unscale(tape.gradient(scaled, [weight.value]))
    optimizer.apply([clip(g) for g in gradients], [weight], is_unscaled=True)
    return gradients[0]


@KINDS
@JIT
def test_a_script_clips_by_hand_in_any_precision(kind, jit_compile):
    optimizer = make(kind)
    weight = weight_of(optimizer)
    step = tf.function(
        lambda factor: clipped_step(optimizer, weight, lambda g: g / 4, factor),
        jit_compile=jit_compile,
    )
    for factor in (2.0, 4.0):
        gradient = step(tf.constant(factor))
        assert (gradient.dtype, gradient.numpy().tolist()) == (tf.float32, [factor])
    assert weight.numpy().tolist() == [1 - 0.5 - 1]
    # What `apply` got, as `global_clipnorm` of the inner optimizer is not seen by it.
    assert optimizer.history()[1]["grad_norm"].tolist() == [0.5, 1.0]


@KINDS
def test_scaled_multiplies_and_takes_no_note(kind):
    optimizer = make(kind)
    factor = 8.0 if kind == "scaled" else 1.0
    value = optimizer.scaled(tf.constant([5000.0, INF], "float16"))
    assert (value.dtype, value.numpy().tolist()) == (tf.float32, [5000 * factor, INF])
    assert not optimizer.notes_losses
    weight = weight_of(optimizer)
    optimizer.apply([tf.constant([NAN])], [weight])
    assert optimizer.skipped_non_finite_loss == 0


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
@pytest.mark.parametrize("traced", [False, True])
def test_what_was_not_finite_is_a_skip_whatever_was_made_of_it(traced, bad):
    optimizer = make()
    first, second = keras.Variable([1.0], name="first"), keras.Variable([1.0], name="second")
    optimizer.build([first, second])

    def step(gradient):
        gradients = optimizer.unscale([tf.ones([1]), tf.reshape(gradient, [1])])
        mended = [tf.where(tf.math.is_finite(g), g, 0.0) for g in gradients]
        optimizer.apply(mended, [first, second], is_unscaled=True)

    step = tf.function(step) if traced else step
    step(tf.constant(bad))
    assert (first.numpy()[0], second.numpy()[0]) == (1.0, 1.0)
    assert (optimizer.skipped_total, optimizer.scale) == (1, 4.0)
    step(tf.constant(0.5))  # Forgotten again.
    assert (optimizer.skipped_total, optimizer.steps_applied) == (1, 1)


def test_a_collapse_names_the_gradient_that_was_not_finite_when_unscaled():
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0, min_scale=4.0)
    weights = [keras.Variable([1.0], name=name) for name in ("first", "second", "third")]
    gradients = optimizer.unscale([tf.ones([1]), tf.constant([INF]), tf.constant([NAN])], weights)
    optimizer.apply([tf.clip_by_value(g, -1, 1) for g in gradients], weights, is_unscaled=True)
    collapse = optimizer.take_collapse()
    assert (collapse.variable, collapse.has_nan) == ("second", False)


@KINDS
@pytest.mark.parametrize("is_unscaled", [False, True])
def test_apply_wants_to_be_told_once_unscale_was_called(kind, is_unscaled):
    optimizer = make(kind)
    weight = weight_of(optimizer)
    scaled = [tf.constant([4.0])]
    unscaled = optimizer.unscale(scaled)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"is_unscaled=True .*is_unscaled=False"):
            optimizer.apply(scaled, [weight])
    optimizer.apply(unscaled if is_unscaled else scaled, [weight], is_unscaled=is_unscaled)
    assert weight.numpy()[0] == (0.5 if kind == "scaled" else -3.0)
    optimizer.apply(scaled, [weight])  # Not any more.
    assert optimizer.steps_attempted == 2


def fit_once(optimizer, weight):
    """What `fit` does: scales its own loss and applies in one traced function."""

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            scaled = optimizer.scale_loss(tf.reduce_sum(weight.value))
        optimizer.apply(tape.gradient(scaled, [weight.value]), [weight])

    step()


def test_a_look_at_a_gradient_does_not_disturb_fit():
    optimizer = make()
    weight = weight_of(optimizer)
    assert optimizer.unscale([tf.constant([4.0])])[0].numpy() == 0.5
    fit_once(optimizer, weight)
    assert weight.numpy()[0] == 0.0


def test_gradients_that_another_function_unscaled_are_noticed():
    optimizer = make()
    weight = weight_of(optimizer)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            scaled = optimizer.scale_loss(tf.reduce_sum(weight.value))
        return optimizer.unscale(tape.gradient(scaled, [weight.value]))

    apply = tf.function(lambda gradients: optimizer.apply(gradients, [weight]))
    with pytest.raises(ValueError, match="was not told"):
        optimizer.apply(gradients(), [weight])
    with pytest.raises(ValueError, match="was not told"):
        apply(gradients())
    with pytest.raises(ValueError, match="was not told"):
        tf.function(lambda: apply(gradients()))()
    tf.function(lambda: optimizer.apply(gradients(), [weight], is_unscaled=True))()
    assert weight.numpy()[0] == 0.0


def test_a_branch_belongs_to_the_step_that_it_is_in():
    optimizer = make()
    weight = weight_of(optimizer)

    def step(is_unscaled):
        gradients = optimizer.unscale([tf.constant([4.0])])
        norm = tf.linalg.global_norm(gradients)

        def apply():
            optimizer.apply(gradients, [weight], is_unscaled=is_unscaled)
            return 1

        return tf.cond(norm < 1.0, apply, lambda: 0)

    with pytest.raises(ValueError, match="was not told"):
        tf.function(step)(None)
    assert tf.function(step)(True).numpy() == 1
    assert weight.numpy()[0] == 0.5


@JIT
def test_embeddings_and_variables_without_a_gradient(jit_compile):
    optimizer = make(scale=4.0)
    table = keras.Variable(np.zeros((4, 2), "float32"), name="table")
    unused, used = keras.Variable([1.0], name="unused"), keras.Variable([1.0], name="used")
    optimizer.build([table, unused, used])

    @tf.function(jit_compile=jit_compile)
    def step(value):
        slices = tf.IndexedSlices(tf.fill([2, 2], value), tf.constant([1, 1]), tf.constant([4, 2]))
        sparse, none, dense = optimizer.unscale([slices, None, tf.ones([1])])
        assert isinstance(sparse, tf.IndexedSlices) and none is None
        (sparse, dense), norm = tf.clip_by_global_norm([sparse, dense], 1e6)
        optimizer.apply([sparse, None, dense], is_unscaled=True)
        return norm

    with pytest.warns(UserWarning, match="unused"):
        norm = step(tf.constant(4.0))
    # Each row once: the two slices of row 1 make 2, not two times 1.
    assert norm.numpy() == pytest.approx(math.sqrt(2 * 2**2 + 0.25**2))
    assert table.numpy().tolist() == [[0, 0], [-2, -2], [0, 0], [0, 0]]
    step(tf.constant(INF))
    assert optimizer.skipped_total == 1
    assert table.numpy().tolist() == [[0, 0], [-2, -2], [0, 0], [0, 0]]


@KINDS
def test_with_accumulation_each_microbatch_is_unscaled(kind):
    optimizer = make(kind, gradient_accumulation_steps=2)
    weight = weight_of(optimizer)
    step = tf.function(
        lambda factor: clipped_step(
            optimizer, weight, lambda g: tf.clip_by_value(g, -1.0, 1.0), factor
        )
    )
    for factor in (0.5, 9.0, 1.0, INF, 0.25, 0.75):
        step(tf.constant(factor))
    # The group with an overflow is discarded where steps are skipped, though it was clipped.
    expected = [0.75, 0.5] if kind == "scaled" else [0.75, 1.0, 0.5]
    assert weight.numpy()[0] == 1 - sum(expected)


@pytest.mark.parametrize("replica", [0, 1])
@KINDS
def test_on_replicas_the_whole_gradient_is_clipped(two_replicas, kind, replica):
    with two_replicas.scope():
        optimizer = make(kind)
        weight = weight_of(optimizer)

    def step(gradients):
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        scaled = optimizer.scaled(tf.reshape(gradients[index], [1]))
        (clipped,), norm = tf.clip_by_global_norm(optimizer.unscale([scaled]), 0.5)
        optimizer.apply([clipped], [weight], is_unscaled=True)
        return norm

    run = tf.function(lambda gradients: two_replicas.run(step, args=(gradients,)))
    norms = two_replicas.experimental_local_results(run(tf.constant([3.0, 4.0])))
    assert [norm.numpy() for norm in norms] == [7.0, 7.0]
    bad = [0.0, 0.0]
    bad[replica] = INF
    run(tf.constant(bad))
    values = [copy.numpy()[0] for copy in two_replicas.experimental_local_results(weight.value)]
    if kind == "scaled":
        assert values == [0.5, 0.5] and optimizer.skipped_total == 1
    else:
        assert np.isnan(values).all()


def test_on_replicas_what_was_not_summed_is_refused(two_replicas):
    with two_replicas.scope():
        optimizer = make()
        weight = weight_of(optimizer)

    def apply(**said):
        optimizer.apply([tf.ones([1])], [weight], **said)

    def unscale_and_apply():
        optimizer.unscale([tf.ones([1])])
        apply()

    with pytest.raises(ValueError, match="must be summed before"):
        two_replicas.run(lambda: apply(is_unscaled=True))
    with pytest.raises(ValueError, match="was not told"):
        two_replicas.run(unscale_and_apply)
    assert weight.numpy()[0] == 1.0


def test_what_overwrites_its_variable_is_not_scaled():
    optimizer = make()
    weight, state = keras.Variable([1.0], name="weight"), keras.Variable([1.0], name="state")
    state.overwrite_with_gradient = True
    optimizer.build([weight, state])
    gradients = optimizer.unscale([tf.constant([4.0]), tf.constant([7.0])])
    assert [g.numpy()[0] for g in gradients] == [0.5, 7.0]
    optimizer.apply(gradients, is_unscaled=True)
    assert (weight.numpy()[0], state.numpy()[0]) == (0.5, 7.0)


def test_gradients_of_some_of_the_variables():
    optimizer = make()
    weights = [keras.Variable([1.0], name="first"), keras.Variable([1.0], name="second")]
    optimizer.build(weights)
    with pytest.raises(ValueError, match="1 gradients came for 2 variables"):
        optimizer.unscale([tf.constant([4.0])])
    gradients = optimizer.unscale([tf.constant([4.0])], weights[1:])
    optimizer.apply(gradients, weights[1:], is_unscaled=True)
    assert [weight.numpy()[0] for weight in weights] == [1.0, 0.5]
