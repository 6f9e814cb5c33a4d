"""Every private name that tfamp uses of Keras, TensorFlow and keras-cv, and what fails without it.

A test that fails here says which function of `keras_internals` this version of them has broken.
"""

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.precision.keras_internals import MissingInternal


class Empty:
    """Has none of the names."""


def test_layers_within_finds_layers_that_no_list_holds():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.hidden = {"dense": keras.layers.Dense(1)}

        def call(self, inputs):
            return self.hidden["dense"](inputs)

    inner = keras.Sequential([keras.Input((1,)), Block()])
    model = keras.Sequential([keras.Input((1,)), inner])
    kinds = {type(layer).__name__ for layer in keras_internals.layers_within(model)}
    assert {"Sequential", "Block", "Dense"} <= kinds
    assert model not in keras_internals.layers_within(model)
    with pytest.raises(MissingInternal, match=r"no Empty\._flatten_layers: its inner layers"):
        keras_internals.layers_within(Empty())


def test_attention_parts_are_what_the_call_uses():
    layer = keras.layers.MultiHeadAttention(1, 2, dropout=0.5)
    layer.build((2, 3, 4), (2, 3, 4))
    softmax, dropout = keras_internals.attention_parts(layer)
    assert isinstance(softmax, keras.layers.Softmax)
    assert isinstance(dropout, keras.layers.Dropout)
    with pytest.raises(MissingInternal, match="its softmax cannot be made float32"):
        keras_internals.attention_parts(Empty())


def test_an_optimizer_knows_its_variables_whatever_wraps_them():
    first, second = keras.Variable([1.0]), keras.Variable([2.0])
    optimizer = keras.optimizers.SGD()
    assert keras_internals.trained_variables(optimizer) == []
    optimizer.build([first, second])
    assert [id(v) for v in keras_internals.trained_variables(optimizer)] == [id(first), id(second)]
    for variable in (second, second.value):
        assert keras_internals.index_of(optimizer, variable) == 1
    with pytest.raises(MissingInternal, match="cannot know its variables"):
        keras_internals.trained_variables(Empty())
    with pytest.raises(MissingInternal, match="cannot be told from another"):
        keras_internals.index_of(Empty(), first)


def test_gradients_are_taken_as_they_come(two_replicas):
    with two_replicas.scope():
        weights = [keras.Variable([0.0]), keras.Variable([0.0])]
        optimizers = [keras.optimizers.SGD(1.0), keras.optimizers.SGD(1.0)]
    keras_internals.take_gradients_as_they_come(optimizers[1])
    for optimizer, weight in zip(optimizers, weights, strict=True):
        run = tf.function(two_replicas.run)
        run(lambda o=optimizer, w=weight: o.apply([tf.ones([1])], [w]))
    # Keras sums a 1 of each replica; told not to, it takes the 1 as the sum that it is.
    assert [weight.value.numpy()[0] for weight in weights] == [-2.0, -1.0]
    with pytest.raises(MissingInternal, match="summed over the replicas twice"):
        keras_internals.take_gradients_as_they_come(Empty())


def test_calls_of_apply_counts_what_iterations_does_not():
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    for _ in range(3):
        optimizer.apply([tf.ones([1])], [weight])
    assert int(keras_internals.calls_of_apply(optimizer).numpy()) == 3
    assert int(optimizer.iterations) == 1


def test_has_schedule():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert keras_internals.has_schedule(keras.optimizers.SGD(schedule))
    assert not keras_internals.has_schedule(keras.optimizers.SGD(0.1))


def test_enclosing_graphs():
    assert keras_internals.enclosing_graphs() == []
    found = []

    def branch():
        found.append(keras_internals.enclosing_graphs())
        return 0

    @tf.function
    def outer():
        found.append(keras_internals.enclosing_graphs())
        return tf.cond(tf.random.uniform([]) < 0.5, branch, lambda: 1)

    outer()
    (around,), (inside, *outside) = found
    assert outside == [around] and inside is not around


def test_the_default_strategy_needs_no_merge_call(two_replicas):
    assert keras_internals.updates_in_replica_context()
    with two_replicas.scope():
        assert not keras_internals.updates_in_replica_context()


def test_build_for_builds_the_compiled_metrics():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    before = len(model.metrics_names)
    batch = (tf.TensorSpec((4, 2)), tf.TensorSpec((4, 1)))
    keras_internals.build_for(model, batch)
    assert len(model.metrics_names) >= before
    assert {metric.name for metric in model.metrics} == {"loss", "compile_metrics"}
    with pytest.raises(MissingInternal, match="metrics cannot be built"):
        keras_internals.build_for(Empty(), batch)


def test_the_parts_of_the_trainer_are_called_and_put_back(two_replicas):
    called = []

    def build(original, model, iterator, data_batch):
        called.append("build")
        original(model, iterator=iterator, data_batch=data_batch)

    def reduce(original, values, strategy, reduction):
        called.append("reduce")
        return original(values, strategy, reduction)

    def fit():
        with two_replicas.scope():
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", jit_compile=False)
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)

    with keras_internals.replaced_trainer_parts(build, reduce):
        fit()
    assert set(called) == {"build", "reduce"}
    called.clear()
    fit()
    assert called == []


def test_global_seed():
    keras.utils.set_random_seed(123)
    assert keras_internals.global_seed() == 123


def test_keras_cv_draws_from_the_generator_that_it_is_given():
    layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=1)
    inner = keras_internals.augmentations_within(layer)
    assert inner and all(keras_internals.random_generator_of(part) is not None for part in inner)
    generator = object()
    keras_internals.set_random_generator(layer, generator)
    assert keras_internals.random_generator_of(layer) is generator
    assert keras_internals.random_generator_of(Empty()) is None


def test_a_message_names_versions_and_the_way_out():
    with pytest.raises(MissingInternal) as raised:
        keras_internals.layers_within(Empty())
    assert all(part in str(raised.value) for part in (keras.__version__, tf.__version__, "setup."))
    assert isinstance(raised.value, RuntimeError)
