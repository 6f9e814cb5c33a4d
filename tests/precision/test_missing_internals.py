"""What becomes of each private name of Keras, TensorFlow and keras-cv that is no longer there."""

import importlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.precision.keras_internals import MissingInternal


class Empty:
    """Has none of the names."""


@pytest.mark.parametrize(
    ("function", "arguments", "part"),
    [
        ("layers_within", (), "_flatten_layers"),
        ("attention_parts", (), "_softmax"),
        ("trained_variables", (), "_trainable_variables"),
        ("index_of", (None,), "_get_variable_index"),
        ("take_gradients_as_they_come", (), "_all_reduce_sum_gradients"),
        ("build_for", (None,), "_symbolic_build"),
        ("compiled_loss", (), "_compile_loss: its compiled loss"),
        ("mean_loss", (), "_loss_tracker: its mean loss"),
        ("mixing_with", (None,), "_mixup"),
    ],
)
def test_what_cannot_go_on_without_a_name_says_which(function, arguments, part):
    with pytest.raises(MissingInternal, match=rf"no Empty\.{part}"):
        getattr(keras_internals, function)(Empty(), *arguments)


def test_attention_without_its_dropout():
    layer = types.SimpleNamespace(_softmax=1)
    with pytest.raises(MissingInternal, match="_dropout_layer: its softmax cannot be made float32"):
        keras_internals.attention_parts(layer)


def test_optimizers_go_on_with_what_is_public():
    optimizer = types.SimpleNamespace(iterations=7)
    assert keras_internals.calls_of_apply(optimizer) == 7
    assert keras_internals.has_schedule(optimizer) is False


def test_without_tensorflows_answer_only_the_default_strategy_needs_no_merge_call(
    two_replicas, monkeypatch
):
    monkeypatch.setattr(tf, "__internal__", types.SimpleNamespace(), raising=False)
    assert keras_internals.updates_in_replica_context() is True
    with two_replicas.scope():
        assert keras_internals.updates_in_replica_context() is False


def test_the_seeds_of_keras():
    rng_utils = importlib.import_module("keras.src.utils.rng_utils")
    keras.utils.set_random_seed(5)
    first = keras_internals.global_seed_generator()
    assert first is keras_internals.global_seed_generator()
    assert isinstance(first, keras.random.SeedGenerator)
    before = first.state.numpy()
    keras.random.uniform([2])
    assert not np.array_equal(first.state.numpy(), before)
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr(rng_utils, "get_random_seed")
        assert keras_internals.global_seed() is None
    with pytest.MonkeyPatch.context() as patched:
        module = importlib.import_module("keras.src.random.seed_generator")
        patched.delattr(module, "global_seed_generator")
        with pytest.raises(MissingInternal, match="random state cannot be captured"):
            keras_internals.global_seed_generator()


def test_the_compiled_loss_and_its_mean():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    assert keras_internals.mean_loss(model).name == "loss"
    loss = keras_internals.compiled_loss(model)
    assert float(loss(tf.constant([[1.0]]), tf.constant([[3.0]]))) == 4.0


def test_keras_cv_layers_that_choose_from_nothing():
    chooser = types.SimpleNamespace(layers=["a"], _random_choice="b")
    assert keras_internals.augmentations_within(chooser) == ["a", "b"]
    assert keras_internals.augmentations_within(Empty()) == []
    mixer = types.SimpleNamespace(_cutmix=None)
    assert keras_internals.mixing_with(mixer, len)._cutmix is len
    mixer = types.SimpleNamespace(_mixup=None)
    assert keras_internals.mixing_with(mixer, len)._mixup is len
