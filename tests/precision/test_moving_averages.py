"""A skip leaves moving averages as they were, in fit, under XLA, on replicas and with groups."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow

INPUTS = np.random.default_rng(0).normal(size=(128, 3)).astype("float32")
TARGETS = INPUTS.sum(axis=1, keepdims=True)


def trained(inputs, accumulation=None, jit_compile=False, keeps=True, targets=TARGETS):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.25),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.01, gradient_accumulation_steps=accumulation), 8.0
    )
    model.compile(optimizer, loss="mse", jit_compile=jit_compile)

    def fit():
        model.fit(inputs, targets, batch_size=16, epochs=1, shuffle=False, verbose=0)

    if keeps:
        with tfamp.kept_moving_averages(model):
            fit()
    else:
        fit()
    return model


def averages(model):
    return [variable.numpy() for variable in model.layers[1].non_trainable_variables]


def with_bad_batch(bad):
    inputs = INPUTS.copy()
    inputs[48:64, 1] = bad  # The fourth of eight.
    return inputs


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_a_bad_batch_is_as_if_it_had_not_been(jit_compile):
    model = trained(with_bad_batch(np.nan), jit_compile=jit_compile)
    assert model.optimizer.skipped_total == model.optimizer.skipped_non_finite_loss == 1
    kept = np.r_[0:48, 64:128]
    # A dropout's seed moves on at a skip; averages do not depend on it in the first layers' first
    # steps, and the weights before the bad batch are the same.
    before = trained(INPUTS[:48], jit_compile=jit_compile, targets=TARGETS[:48])
    upto = trained(with_bad_batch(np.nan)[:64], jit_compile=jit_compile, targets=TARGETS[:64])
    for ours, expected in zip(averages(upto), averages(before), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert all(np.isfinite(value).all() for value in averages(model))
    assert np.isfinite(model.evaluate(INPUTS[kept], TARGETS[kept], verbose=0))


def test_without_it_keras_keeps_the_nan_for_ever():
    model = trained(with_bad_batch(np.nan), keeps=False)
    assert np.isnan(averages(model)[0]).any()
    assert np.isnan(model.evaluate(INPUTS, TARGETS, verbose=0))


def test_an_overflow_of_the_gradient_alone_is_undone_too():
    targets = TARGETS.copy()
    targets[48:64] = 1e9
    model = trained(INPUTS[:64], targets=targets[:64])
    assert model.optimizer.skipped_total == 1 and model.optimizer.skipped_non_finite_loss == 0
    for ours, expected in zip(
        averages(model), averages(trained(INPUTS[:48], targets=TARGETS[:48])), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.slow
def test_a_bad_microbatch_anywhere_in_a_group():
    # The fourth microbatch is the second of its group of two, the third is the first.
    for start in (32, 48):
        inputs = INPUTS.copy()
        inputs[start : start + 16] = np.nan
        model = trained(inputs, accumulation=2)
        assert model.optimizer.skipped_total == 1
        assert all(np.isfinite(value).all() for value in averages(model))


def test_an_overflow_at_the_end_of_a_group_undoes_its_last_microbatch():
    targets = TARGETS.copy()
    targets[48:64] = 1e9
    model = trained(INPUTS[:64], accumulation=2, targets=targets[:64])
    assert (model.optimizer.skipped_total, model.optimizer.skipped_non_finite_loss) == (1, 0)
    three = trained(INPUTS[:48], accumulation=2, targets=TARGETS[:48])
    for ours, expected in zip(averages(model), averages(three), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_the_model_is_left_as_it_was_also_after_an_error():
    model = trained(INPUTS)
    assert "train_step" not in vars(model)
    with pytest.raises(RuntimeError), tfamp.kept_moving_averages(model):
        assert "train_step" in vars(model)
        assert model.optimizer.announcements.keeps_averages
        raise RuntimeError
    assert "train_step" not in vars(model)
    assert not model.optimizer.announcements.keeps_averages


def test_on_replicas(two_replicas):
    with two_replicas.scope():
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        )
        model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.01), 8.0), loss="mse",
                      jit_compile=False)  # fmt: skip
    data = tf.data.Dataset.from_tensor_slices((with_bad_batch(np.inf), TARGETS)).batch(16)
    with tfamp.kept_moving_averages(model):
        model.fit(data, epochs=1, verbose=0, shuffle=False)
    assert model.optimizer.skipped_non_finite_loss == 1
    for variable in model.non_trainable_variables:
        for copy in two_replicas.experimental_local_results(variable.value):
            assert np.isfinite(copy.numpy()).all()
