"""The probe against an independent computation, on every kind of model; the model stays still."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfamp.diagnosis.probe import Probe
from tfamp.precision.policy import global_policy

BATCH = 6


class Block(keras.layers.Layer):
    """Layers inside a layer, and an operation of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(5, activation="tanh")
        self.dropout = keras.layers.Dropout(0.4, seed=3)

    def build(self, shape):
        self.dense.build(shape)
        self.gain = self.add_weight(shape=(5,), initializer="ones", name="gain")

    def call(self, inputs, training=False):
        return self.dropout(self.dense(inputs), training=training) * self.gain


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.norm = keras.layers.BatchNormalization()
        self.head = keras.layers.Dense(3)

    def call(self, inputs, training=False):
        hidden = self.norm(self.block(inputs, training=training), training=training)
        return self.head(hidden)


def functional():
    inputs = keras.Input([5])
    inner = keras.Sequential([keras.Input([5]), keras.layers.Dense(5, activation="tanh")])
    hidden = keras.layers.Dropout(0.3, seed=1)(inner(inputs))
    hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, kernel_regularizer="l2")(hidden))


def two_outputs():
    first, second = keras.Input([5]), keras.Input([4])
    hidden = keras.layers.Concatenate()([first, second])
    hidden = keras.layers.Dense(6, activation="tanh")(hidden)
    outputs = [keras.layers.Dense(3)(hidden), keras.layers.Dense(1)(hidden)]
    return keras.Model([first, second], outputs)


def subclassed():
    model = Subclassed()
    model(tf.zeros([1, 5]))
    return model


def batch_for(model):
    draw = np.random.default_rng(0)

    def of(*shape):
        return draw.normal(size=(BATCH, *shape)).astype("float32")

    if isinstance(getattr(model, "output", None), list):
        return [of(5), of(4)], [of(3), of(1)]
    return of(5), of(3)


MODELS = {"functional": functional, "subclassed": subclassed, "two_outputs": two_outputs}


@pytest.fixture(params=MODELS)
def make(request):
    return MODELS[request.param]


@pytest.fixture
def model(make):
    keras.utils.set_random_seed(0)
    return make()


def all_of(taken):
    return np.concatenate([np.ravel(w.gradient).astype("float64") for w in taken.weights])


def error(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


def plainly(make, model, policy, scale=1.0):
    """The gradient by nothing but a tape, of a model built anew under a policy."""
    with global_policy(policy):
        built = make()
    built.set_weights(model.get_weights())
    inputs, targets = batch_for(model)
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(built(inputs, training=False))
        losses = [
            tf.reduce_mean(tf.square(tf.cast(out, tf.float32) - target))
            for out, target in zip(outputs, keras.tree.flatten(targets), strict=True)
        ]
        loss = tf.add_n(losses) + sum(built.losses)
        scaled = loss * scale
    gradients = tape.gradient(scaled, built.trainable_variables)
    return float(loss), np.concatenate([np.ravel(g.numpy()) for g in gradients])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_agrees_with_a_tape_in_float32_and_with_float64_beyond_it(make, model, jit_compile):
    batch = batch_for(model)
    loss, expected = plainly(make, model, "float32")
    with Probe(model, "mse", training=False, jit_compile=jit_compile) as probe:
        single = probe.run(batch, probe.mixed("float32"))
        exact = probe.run(batch, probe.everywhere("float64"))
    assert single.loss == pytest.approx(loss, rel=1e-6)
    assert error(all_of(single), expected) < 1e-6
    assert 0 < error(all_of(single), all_of(exact)) < 1e-6
    assert exact.loss.dtype == np.float64


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_is_a_model_built_under_the_policy_to_the_bit(make, model, scale):
    batch = batch_for(model)
    _, expected = plainly(make, model, "mixed_float16", scale)
    with Probe(model, "mse", training=False) as probe:
        half = probe.run(batch, probe.mixed("float16"), scale)
        eager = probe.run(batch, probe.mixed("float16"), scale, eager=True)
    np.testing.assert_array_equal(all_of(half), expected)
    np.testing.assert_array_equal(all_of(eager), expected)
    assert 1e-5 < error(all_of(half) / scale, plainly(make, model, "float32")[1]) < 1e-2


def test_the_same_masks_whatever_is_computed_in(model):
    batch = batch_for(model)
    with Probe(model, "mse", seed=7) as probe:
        taken = {
            dtype: probe.run(batch, probe.everywhere(dtype))
            for dtype in ("float64", "float32", "float16", "bfloat16")
        }
        again = probe.run(batch, probe.everywhere("float64"))
    exact = all_of(taken["float64"])
    np.testing.assert_array_equal(all_of(again), exact)
    for dtype, most in (("float32", 1e-5), ("float16", 0.02), ("bfloat16", 0.2)):
        assert error(all_of(taken[dtype]), exact) < most
    if model.name.startswith("sub") or len(model.outputs) == 1:
        with Probe(model, "mse", seed=8) as probe:
            other = probe.run(batch, probe.everywhere("float64"))
        assert error(all_of(other), exact) > 0.1


def test_activation_gradients_are_those_of_the_outputs(model):
    batch = batch_for(model)
    with Probe(model, lambda targets, outputs: _summed(outputs), training=False) as probe:
        taken = probe.run(batch, probe.everywhere("float64"), scale=4.0)
    heads = [call for call in taken.calls if call.outputs and call.gradients[0] is not None]
    last = heads[-1].gradients[0]
    np.testing.assert_allclose(last, np.full(last.shape, 4.0))
    for call in heads:
        assert [g.shape for g in call.gradients] == [o.shape for o in call.outputs]


def _summed(outputs):
    return tf.add_n([tf.reduce_sum(output) for output in keras.tree.flatten(outputs)])


def test_leaves_model_and_random_state_as_they_were(model):
    model.compile("adam", "mse")
    model.fit(*batch_for(model), verbose=0)
    batch = batch_for(model)
    layers = [model, *model._flatten_layers(include_self=False)]

    def state():
        return (
            [np.array(v.numpy()) for v in [*model.variables, *model.optimizer.variables]],
            [np.array(v.numpy()) for v in model.metrics_variables],
            [id(layer.dtype_policy) for layer in layers],
            random.getstate(),
            np.random.get_state()[1].tolist(),
        )

    before = state()
    loss_dtype, call = keras.losses.Loss.dtype, keras.layers.Layer.__call__
    with pytest.raises(ZeroDivisionError), Probe(model) as probe:
        probe.run(batch, probe.mixed("float16"), 2.0**30)
        probe.run(batch, probe.everywhere("float64"))
        probe.run(batch, probe.mixed("float16", only_forward=True), eager=True)
        probe.run(batch, probe.mixed("float16"), read=lambda taken: 1 / 0)
    after = state()
    for one, other in zip(before[0] + before[1], after[0] + after[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert before[2:] == after[2:]
    assert keras.losses.Loss.dtype is loss_dtype and keras.layers.Layer.__call__ is call
    assert not tf.config.functions_run_eagerly()


def test_only_forward_and_way_back_make_up_the_error(model):
    batch = batch_for(model)
    with Probe(model, "mse", training=False) as probe:
        exact = all_of(probe.run(batch, probe.everywhere("float64")))
        half = all_of(probe.run(batch, probe.mixed("float16"), 2.0**8)) / 2**8
        forward = all_of(probe.run(batch, probe.mixed("float16", only_forward=True), eager=True))
        same = all_of(
            probe.run(batch, probe.mixed("float32", only_forward=True), scale=2.0**-40, eager=True)
        )
    # In float64 no scale underflows; what float32 rounds on the way forward is left.
    assert 0 < error(same * 2.0**40, exact) < 1e-6
    assert 1e-5 < error(forward, exact) < 1e-2
    assert 1e-5 < error(half, forward) < 1e-2
