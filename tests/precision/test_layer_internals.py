"""What diagnosis needs of Keras's and TensorFlow's private names, and what fails without it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfamp.precision import layer_internals
from tfamp.precision.keras_internals import MissingInternal


class Empty:
    """Has none of the names."""


def test_a_policy_is_set_without_writing_into_a_shared_map():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16")
    layer = keras.layers.Dense(1, dtype=policies)
    layer.build((1, 1))
    layer_internals.set_policy_slot(layer, keras.DTypePolicy("float32"))
    assert layer.compute_dtype == "float32"
    assert not dict(policies)
    layer_internals.set_policy_slot(layer, policies)
    assert layer_internals.policy_slot(layer) is policies
    assert layer.compute_dtype == "float16"
    with pytest.raises(MissingInternal, match="cannot be changed and put back"):
        layer_internals.policy_slot(Empty())


def test_an_input_converts_to_the_dtype_that_is_set():
    inputs = keras.Input([1])
    model = keras.Model(inputs, keras.layers.Activation("linear", dtype="float64")(inputs))
    wide = np.array([[1.0 + 2.0**-40]])
    assert model(wide).numpy() == 1.0
    layer_internals.set_symbolic_dtype(model.inputs[0], "float64")
    assert model(wide).numpy() == wide
    with pytest.raises(MissingInternal, match="rounded on their way in"):
        layer_internals.set_symbolic_dtype(Empty(), "float64")


def test_a_dropout_holds_its_seed_generator():
    dropout = keras.layers.Dropout(0.5)
    assert [g.state.path for g in layer_internals.seed_generators_within(dropout)]
    assert layer_internals.seed_generators_within(keras.layers.Dense(1)) == []


def test_losses_compute_in_the_dtype_for_a_while():
    loss = keras.losses.MeanSquaredError()
    with layer_internals.loss_dtype("float64"):
        assert loss([[0.0]], [[1.0]]).dtype == tf.float64
    assert loss([[0.0]], [[1.0]]).dtype == tf.float32


def test_a_fresh_compiled_loss_leaves_the_models_own_unbuilt():
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    assert layer_internals.fresh_compiled_loss(model) is None
    model.compile(loss="mse", loss_weights=[2.0])
    fresh = layer_internals.fresh_compiled_loss(model)
    assert float(fresh(tf.zeros([1, 1]), tf.ones([1, 1]))) == 2.0
    assert fresh.built and not model._compile_loss.built


@pytest.mark.parametrize(
    "draw",
    [
        lambda dtype: keras.random.normal([500], dtype=dtype, seed=1),
        lambda dtype: keras.random.uniform([500], dtype=dtype, seed=1),
        lambda dtype: keras.random.gamma([500], 2.0, dtype=dtype, seed=1),
        lambda dtype: keras.random.dropout(tf.ones([500], dtype), 0.1, seed=1),
        lambda dtype: tf.nn.experimental.stateless_dropout(tf.ones([500], dtype), 0.1, [1, 2]),
    ],
)
def test_draws_are_asked_for_in_one_place(draw):
    asked = []

    def same(drawn, dtype, is_fixed):
        asked.append(dtype)
        value = drawn("float32")
        return tf.cast(value, dtype) if is_fixed else value

    with layer_internals.replaced_draws(same):
        half, exact = draw("float16"), draw("float64")
    assert asked == ["float16", "float64"]
    assert (half.dtype, exact.dtype) == (tf.float16, tf.float64)
    np.testing.assert_allclose(half, exact, atol=2e-3, rtol=2e-3)


def test_without_it_float16_drops_other_entries():
    half, single = (
        np.array(keras.random.dropout(tf.ones([500], dtype), 0.5, seed=1)) > 0
        for dtype in ("float16", "float32")
    )
    assert np.any(half != single)


@pytest.mark.parametrize("traced", [False, True])
def test_a_variable_of_float32_has_a_gradient_that_float32_does_not_hold(traced):
    x = tf.Variable([3.0])

    def gradient():
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(tf.cast(x, tf.float64) / 3)
        return tape.gradient(y, x)

    with layer_internals.gradients_in_float64():
        found = tf.function(gradient, autograph=False)() if traced else gradient()
    assert found.numpy()[0] == 1 / 3


def test_every_tape_goes_back_in_float64():
    x = tf.Variable([3.0])

    @tf.custom_gradient
    def doubled(value):
        return value * 2, lambda upstream: upstream * 2

    def gradient():
        with tf.GradientTape() as tape:
            y = tf.nn.silu(doubled(tf.cast(x, tf.float16)))
            y = tf.gather(tf.reduce_sum(y * y, keepdims=True), [0])
        return tape.gradient(y, x)

    plain = gradient()
    with layer_internals.gradients_in_float64():
        exact = tf.convert_to_tensor(gradient())
        in_graph = tf.function(gradient, autograph=False)()
    s = 1 / (1 + np.exp(-6.0))
    half = np.float64(np.float16(6 * s))
    expected = 2 * half * (s + 6 * s * (1 - s)) * 2
    assert exact.dtype == in_graph.dtype == tf.float64
    assert exact.numpy() == pytest.approx(expected, rel=2e-3)
    assert in_graph.numpy() == pytest.approx(exact.numpy())
    assert gradient().dtype == plain.dtype == tf.float32
