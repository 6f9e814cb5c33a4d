"""Embedding gradients, which are IndexedSlices, and None gradients, compiled and not."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow


def embedding_model():
    """Looks up 3 words out of 6 and predicts a number."""
    return keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(6, 4, name="words"),
            keras.layers.Flatten(),
            keras.layers.Dense(1, dtype="float32", name="head"),
        ]
    )


WORDS = np.array([[0, 1, 1], [1, 5, 0]], "int32")
TARGETS = np.array([[1.0], [-1.0]], "float32")


def trained(inner, jit_compile, steps=4):
    """A float32 model after `steps` of train_on_batch with our optimizer."""
    keras.utils.set_random_seed(0)
    model = embedding_model()
    model.compile(tfamp.LossScaleOptimizer(inner), loss="mse", jit_compile=jit_compile)
    for _ in range(steps):
        model.train_on_batch(WORDS, TARGETS)
    return model


def reference(inner, steps=4):
    """The same with the bare optimizer, which is given the gradient as a dense tensor.

    Given IndexedSlices with a row twice, Keras's Adam squares the two parts and not their sum, and
    its clipping takes the norm of the parts.
    """
    keras.utils.set_random_seed(0)
    model = embedding_model()
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(WORDS) - TARGETS) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        inner.apply(dense, model.trainable_variables)
    return model.get_weights()


def sgd(**values):
    return keras.optimizers.SGD(0.1, momentum=0.9, **values)


def adam(**values):
    return keras.optimizers.Adam(0.1, **values)


def clipped(**values):
    return keras.optimizers.SGD(0.1, global_clipnorm=0.01, **values)


@pytest.mark.parametrize(
    ("inner", "accumulation", "jit_compile"),
    [
        (sgd, None, False),
        (adam, 2, False),
        (sgd, 2, True),
        (clipped, None, True),
        slow(sgd, None, True),
        slow(sgd, 2, False),
        slow(adam, None, False),
        slow(adam, None, True),
        slow(adam, 2, True),
        slow(clipped, None, False),
        slow(clipped, 2, False),
        slow(clipped, 2, True),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_update_is_that_of_the_dense_gradient(inner, accumulation, jit_compile):
    ours = trained(inner(gradient_accumulation_steps=accumulation), jit_compile)
    assert ours.optimizer.skipped_total == 0
    expected = reference(inner(gradient_accumulation_steps=accumulation))
    for mine, theirs in zip(ours.get_weights(), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    keras.utils.set_random_seed(0)
    start = embedding_model().get_weights()[0]
    moved = np.any(ours.get_weights()[0] != start, axis=1)
    assert moved.tolist() == [True, True, False, False, False, True]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_overflow_in_one_row_skips_the_step(jit_compile):
    table = keras.Variable(np.zeros((4, 2), "float32"), name="table")
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0)
    optimizer.build([table])

    @tf.function(jit_compile=jit_compile)
    def step(values):
        slices = tf.IndexedSlices(values, tf.constant([1, 1]), tf.constant([4, 2]))
        optimizer.apply([slices], [table])

    # Each slice is finite, the row's gradient is not: the sum overflows float32.
    step(tf.constant([[3e38, 0.0], [3e38, 0.0]]))
    assert optimizer.skipped_total == 1
    assert not np.any(table.numpy())
    step(tf.constant([[4.0, 0.0], [math.nan, 0.0]]))
    assert optimizer.skipped_total == 2
    step(tf.constant([[1.0, 0.0], [1.0, 1.0]]))
    assert table.numpy().tolist() == [[0, 0], [-2, -1], [0, 0], [0, 0]]
    # The row's norm, not that of its slices.
    np.testing.assert_allclose(optimizer.grad_norm, math.sqrt(5.0))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("accumulation", [None, 2])
def test_a_variable_without_a_gradient_is_left_alone(accumulation, jit_compile):
    used, unused = keras.Variable([1.0], name="used"), keras.Variable([1.0], name="unused")
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=accumulation)
    optimizer = tfamp.LossScaleOptimizer(inner, 4.0)
    optimizer.build([used, unused])

    @tf.function(jit_compile=jit_compile)
    def step(gradient):
        optimizer.apply([tf.reshape(gradient, [1]), None], [used, unused])

    with pytest.warns(UserWarning, match="unused"):  # Keras says so while it traces.
        step(tf.constant(2.0))
    step(tf.constant(2.0))
    expected = 0.5 if accumulation else 0.0
    assert (used.numpy()[0], unused.numpy()[0]) == (expected, 1.0)
    step(tf.constant(math.inf))
    if accumulation:
        step(tf.constant(2.0))
    assert (optimizer.skipped_total, used.numpy()[0]) == (1, expected)


def test_the_first_bad_gradient_is_named_past_none():
    first, second = keras.Variable([1.0], name="first"), keras.Variable([1.0], name="second")
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), 4.0, max_skipped_in_a_row=1, min_scale=1.0
    )
    optimizer.build([first, second])
    for _ in range(2):
        optimizer.apply([None, tf.constant([math.inf])], [first, second])
    with pytest.raises(tfamp.LossScaleCollapse, match="second"):
        optimizer.raise_if_collapsed()
