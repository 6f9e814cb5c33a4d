"""A step is the one that `fit` takes, to the bit, and can be had in parts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tfamp.training.step import Step

GENERATOR = np.random.default_rng(0)
STEPS, BATCH = 4, 8
POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16")


def functional():
    """Two inputs and outputs, penalties on weights and outputs, BatchNormalization, dropout."""
    first, second = keras.Input((4,), name="first"), keras.Input((3,), name="second")
    hidden = keras.layers.Concatenate()([first, second])
    hidden = keras.layers.Dense(8, "relu")(hidden)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.5, seed=1)(hidden)
    # Float32: `fit` cannot add a penalty of 16 bits to its loss.
    penalties = {
        "kernel_regularizer": keras.regularizers.L2(0.1),
        "activity_regularizer": keras.regularizers.L1(0.01),
    }
    left = keras.layers.Dense(2, dtype="float32", name="left", **penalties)(hidden)
    return keras.Model([first, second], [left, keras.layers.Dense(1, name="right")(hidden)])


class Subclassed(keras.Model):
    """Adds a loss in `call`, which takes no `training`: `fit` leaves its dropout out."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, "relu")
        self.dropout = keras.layers.Dropout(0.5, seed=1)
        self.out = keras.layers.Dense(2)

    def call(self, inputs):
        hidden = self.dropout(self.hidden(inputs))
        penalty = keras.ops.mean(keras.ops.square(keras.ops.cast(hidden, "float32")))
        self.add_loss(0.1 * penalty)
        return self.out(hidden)


class OwnLoss(Subclassed):
    """Computes its loss itself, in the form of Keras before 3.3."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 3.0 * super().compute_loss(x, y, y_pred, sample_weight)


def normal(*shape):
    return GENERATOR.normal(size=(STEPS, BATCH, *shape)).astype("float32")


ONE = list(zip(normal(4), normal(2), strict=True))
TWO = [
    ((first, second), (left, right), (weight, weight[::-1]))
    for first, second, left, right, weight in zip(
        normal(4), normal(3), normal(2), normal(1), np.abs(normal()), strict=True
    )
]
CASES = [
    *((functional, policy, False) for policy in POLICIES),
    pytest.param(functional, "mixed_float16", True, marks=pytest.mark.slow),
    (Subclassed, "mixed_float16", False),
    (OwnLoss, "float32", False),
]


def compiled(make, policy, jit_compile=False):
    """The same built model at every call, and its batches."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    model, batches = make(), TWO if make is functional else ONE
    model(batches[0][0])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    if "float16" in policy and policy != "mixed_bfloat16":
        # Overflows at first, so that there are skips as well as steps.
        optimizer = tfamp.LossScaleOptimizer(optimizer, 2.0**20, backoff_factor=2.0**-10)
    metrics = [["mae"], ["mae"]] if make is functional else ["mae"]
    model.compile(optimizer, loss="mse", metrics=metrics, jit_compile=jit_compile)
    return model, batches


def trained(model, batches, step):
    """What each step reports; the step is traced once, as `fit` does it."""
    traced = tf.function(lambda *batch: step(batch), jit_compile=model.jit_compile)
    return [{name: float(v) for name, v in traced(*batch).items()} for batch in batches]


@pytest.mark.parametrize(("make", "policy", "jit_compile"), CASES)
def test_it_is_the_step_of_fit_to_the_bit(make, policy, jit_compile):
    theirs, batches = compiled(make, policy, jit_compile)
    expected = trained(theirs, batches, theirs.train_step)
    ours, _ = compiled(make, policy, jit_compile)
    assert trained(ours, batches, Step(ours)) == expected
    for our, their in zip(
        [*ours.variables, *ours.optimizer.variables],
        [*theirs.variables, *theirs.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(our, their, err_msg=our.path)
    if hasattr(ours.optimizer, "skipped_total"):
        assert 0 < ours.optimizer.skipped_total < STEPS


def test_penalties_of_16_bits_are_added_in_float32():
    keras.config.set_dtype_policy("float16")
    penalised = keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="zeros",
                                   kernel_regularizer=keras.regularizers.L2(4096.0))  # fmt: skip
    model = keras.Sequential([keras.Input((8,)), penalised])
    model.compile(keras.optimizers.SGD(), loss="mse")
    batch = (np.zeros((2, 8)), np.full((2, 1), 3.0))
    loss, _ = Step(model).loss(batch)
    assert (loss.dtype, float(loss)) == (tf.float32, 8 * 4096.0 + 9.0)


def test_a_model_without_a_compiled_loss_trains_by_what_it_adds():
    model = Subclassed()
    model.compile(keras.optimizers.SGD(0.1))
    loss, _ = Step(model).loss(ONE[0])
    (added,) = model.losses
    assert float(loss) == float(added) > 0


def test_its_parts_move_nothing_but_apply():
    model, batches = compiled(functional, "float32")
    step, before = Step(model), [np.array(weight) for weight in model.trainable_variables]
    loss, outputs = step.loss(batches[0], training=False)
    assert [output.shape for output in outputs] == [(BATCH, 2), (BATCH, 1)]
    found = step.gradients(batches[0], training=False)
    np.testing.assert_array_equal(found.loss, loss)
    scaled = step.gradients(batches[0], lambda loss: 1024.0 * loss, training=False)
    np.testing.assert_array_equal(scaled.loss, loss)
    for plain, gradient in zip(found.gradients, scaled.gradients, strict=True):
        np.testing.assert_array_equal(gradient, 1024.0 * plain)
    for weight, start in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight, start)
    step.apply(found.gradients)
    for weight, start, gradient in zip(
        model.trainable_variables, before, found.gradients, strict=True
    ):
        np.testing.assert_allclose(weight, start - 0.1 * np.array(gradient), rtol=1e-6)


def test_a_loss_of_the_callers_needs_no_compiled_model():
    """Float64 behind a float32 model: what a reference is computed with."""
    model = functional()

    def squares(targets, outputs, sample_weight):
        return sum(
            tf.reduce_sum(tf.square(tf.cast(output, tf.float64) - target))
            for target, output in zip(targets, outputs, strict=True)
        )

    inputs, targets, _ = TWO[0]
    step = Step(model, squares)
    loss, outputs, gradients = step.gradients((inputs, targets), training=False)
    penalties = float(tf.add_n(model.losses))
    expected = sum(
        np.square(np.float64(output) - target).sum()
        for target, output in zip(targets, outputs, strict=True)
    )
    assert loss.dtype == tf.float64
    np.testing.assert_allclose(loss, expected + penalties, rtol=1e-6)
    assert [gradient.shape for gradient in gradients] == [
        variable.shape for variable in model.trainable_variables
    ]


def test_two_replicas_have_each_its_share_of_loss_and_penalties(two_replicas):
    def make():
        keras.utils.set_random_seed(0)
        penalty = keras.regularizers.L2(0.5)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(2, kernel_regularizer=penalty)]
        )
        model.compile(keras.optimizers.SGD(0.1), loss="mse")
        return Step(model)

    alone = make().gradients(ONE[0])
    with two_replicas.scope():
        step = make()
    parts = [tuple(value[half] for value in ONE[0]) for half in (slice(0, 4), slice(4, 8))]
    batch = two_replicas.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )
    shares = two_replicas.run(step.gradients, args=(batch,))
    total = two_replicas.reduce("SUM", shares.loss, axis=None)
    np.testing.assert_allclose(total, alone.loss, rtol=1e-6)
    for share, expected in zip(shares.gradients, alone.gradients, strict=True):
        np.testing.assert_allclose(
            two_replicas.reduce("SUM", share, axis=None), expected, rtol=1e-5, atol=1e-6
        )
