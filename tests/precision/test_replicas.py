"""Two replicas in one process: one decision, one update, one state."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop

INF, NAN = math.inf, math.nan


def copies(strategy, variable):
    """A variable's value on each replica, read one by one."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return [copy.numpy() for copy in strategy.experimental_local_results(value)]


def same_everywhere(strategy, variables):
    """Asserts that replicas agree to the bit; returns the values."""
    for variable in variables:
        first, second = copies(strategy, variable)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)
    return [copies(strategy, variable)[0] for variable in variables]


class Driver:
    """One weight at 1.0, stepped with a gradient for each replica, and losses of the same size.

    Where a gradient is not finite the loss is 1, unless `tells_losses` is set.
    """

    tells_losses = False

    def __init__(self, strategy, make_optimizer, dtype="float32"):
        self.strategy = strategy
        with strategy.scope():
            self.weight = keras.Variable([1.0], dtype=dtype, name="weight")
            self.optimizer = make_optimizer()
            self.optimizer.build([self.weight])
        self.step = tf.function(self._step)

    def _step(self, gradients):
        self.strategy.run(self._replica_step, args=(gradients,))

    def _replica_step(self, gradients):
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = gradients[index]
        scale = self.optimizer.scale_loss(tf.ones([]))
        is_told = self.tells_losses | tf.math.is_finite(gradient)
        self.optimizer.scale_loss(tf.where(is_told, gradient, 1.0))
        gradient = tf.cast(gradient * scale, self.weight.dtype)
        self.optimizer.apply([tf.reshape(gradient, [1])], [self.weight])

    def run(self, pairs):
        """Takes a step for each pair of unscaled gradients; returns the weight."""
        for pair in pairs:
            self.step(tf.constant(pair, tf.float32))
        variables = [self.weight]
        if isinstance(self.optimizer, tfamp.LossScaleOptimizer):
            history = self.optimizer._record.history
            collapse = self.optimizer._collapse.facts
            variables += [*self.optimizer.variables, collapse, history.rows, history.count]
        return same_everywhere(self.strategy, variables)[0][0]


def scaled(**values):
    """Makes an optimizer: SGD(1.0) with these arguments under a scale of 8."""
    return lambda: tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0, **values), 8.0)


def stock(**values):
    return lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0, **values), 8.0)


def unscaled(**values):
    return lambda: RecordedOptimizer(keras.optimizers.SGD(1.0, **values))


@pytest.mark.parametrize("make", [scaled(), unscaled()])
def test_gradients_are_summed_once(two_replicas, make):
    # Exact: were the inner optimizer to sum again (a Keras whose method has another name), the
    # weight would move twice as far.
    assert Driver(two_replicas, make).run([(0.25, 0.5), (0.5, -0.125)]) == 1 - 0.75 - 0.375


@pytest.mark.parametrize("bad", [INF, NAN])
@pytest.mark.parametrize("replica", [0, 1])
def test_one_bad_replica_makes_all_skip(two_replicas, replica, bad):
    driver = Driver(two_replicas, scaled(momentum=0.5, use_ema=True))
    driver.run([(0.25, 0.5)])
    inner = driver.optimizer.inner_optimizer.variables
    before = same_everywhere(two_replicas, [driver.weight, *inner])
    driver.run([(bad, 0.25) if replica == 0 else (0.25, bad)])
    after = same_everywhere(two_replicas, [driver.weight, *inner])
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    optimizer = driver.optimizer
    assert (optimizer.scale, optimizer.skipped_total, optimizer.steps_applied) == (4.0, 1, 1)
    # And the next step is clean.
    assert math.isfinite(driver.run([(0.25, 0.5)])) and optimizer.steps_applied == 2


@pytest.mark.parametrize("accumulation", [None, 2])
@pytest.mark.parametrize("replica", [0, 1])
def test_a_bad_loss_on_one_replica_is_no_fault_of_the_scale(two_replicas, replica, accumulation):
    driver = Driver(two_replicas, scaled(gradient_accumulation_steps=accumulation))
    driver.tells_losses = True
    bad = (NAN, 0.25) if replica == 0 else (0.25, NAN)
    assert driver.run([bad, (0.25, 0.5)] * (accumulation or 1)) == 1 - (0 if accumulation else 0.75)
    optimizer = driver.optimizer
    assert (optimizer.scale, optimizer.growth_counter) == (8.0, 0 if accumulation else 1)
    assert optimizer.skipped_total == optimizer.skipped_non_finite_loss == (accumulation or 1)


def test_stock_keras_writes_the_infinity_of_replica_1_into_the_weights(two_replicas):
    driver = Driver(two_replicas, stock())
    assert driver.run([(INF, 0.25)]) == 1.0
    assert driver.run([(0.25, INF)]) == -INF
    assert float(driver.optimizer.dynamic_scale.numpy()) == 4.0  # Not halved a second time.


def test_eager_steps_decide_alike(two_replicas):
    driver = Driver(two_replicas, scaled(gradient_accumulation_steps=2))
    driver.step = driver._step
    assert driver.run([(0.25, 0.5), (0.5, INF), (0.25, 0.5), (0.75, 0.5)]) == 0.0
    assert driver.optimizer.skipped_total == 1


def test_opposite_infinities_are_a_skip(two_replicas):
    assert Driver(two_replicas, scaled()).run([(INF, -INF), (0.25, 0.5)]) == 0.25


def test_a_sum_beyond_float32_is_a_skip(two_replicas):
    driver = Driver(two_replicas, scaled())
    assert driver.run([(3e37, 3e37)]) == 1.0
    assert driver.optimizer.skipped_total == 1


def test_float16_gradients_are_summed_in_float32(two_replicas):
    # 8 * 5000 fits float16, twice that does not.
    driver = Driver(two_replicas, scaled(), dtype="float16")
    assert driver.run([(5000, 5000)]) == -10000.0  # 1 - 10000 in float16.
    assert driver.optimizer.skipped_total == 0 and driver.optimizer.grad_norm == 10000.0


@pytest.mark.parametrize("clip", ["global_clipnorm", "clipnorm", "clipvalue"])
def test_clipping_acts_on_the_sum(two_replicas, clip):
    driver = Driver(two_replicas, scaled(**{clip: 1.0}))
    assert driver.run([(3.0, 4.0)]) == 0.0
    assert driver.optimizer.grad_norm == 7.0
    # Stock: each replica's gradient is clipped by itself, and two times 1 is applied.
    assert Driver(two_replicas, stock(**{clip: 1.0})).run([(3.0, 4.0)]) == -1.0


@pytest.mark.parametrize("make", [scaled, unscaled])
def test_accumulation(two_replicas, make):
    driver = Driver(two_replicas, make(gradient_accumulation_steps=2, global_clipnorm=2.0))
    assert driver.run([(0.25, 0.5), (0.75, 0.5)]) == 0.0
    # 12 and 4 accumulate to a mean of 8, which is clipped to 2.
    assert driver.run([(5, 7), (4, 0)]) == -2.0
    rows = driver.optimizer.history()[1]
    np.testing.assert_array_equal(rows["grad_norm"], [NAN, 1, NAN, 8])
    assert rows["loss"].tolist() == [0.75, 1.25, 12, 4]


def test_stock_keras_cannot_accumulate_here(two_replicas):
    with pytest.raises(RuntimeError, match="merge_call"):
        Driver(two_replicas, stock(gradient_accumulation_steps=2)).run([(1, 1)])


@pytest.mark.parametrize("replica", [0, 1])
@pytest.mark.parametrize("microbatch", [0, 1])
def test_an_overflow_in_any_microbatch_on_any_replica_discards_that_group(
    two_replicas, microbatch, replica
):
    driver = Driver(two_replicas, scaled(gradient_accumulation_steps=2))
    group = [[0.25, 0.5], [0.5, 0.75]]
    group[microbatch][replica] = INF
    assert driver.run(group) == 1.0
    assert driver.optimizer.scale == 4.0
    assert driver.run([(0.25, 0.5), (0.75, 0.5)]) == 0.0
    assert (driver.optimizer.steps_attempted, driver.optimizer.steps_applied) == (2, 1)


def test_unscaled_applies_what_comes(two_replicas):
    assert Driver(two_replicas, unscaled()).run([(0.25, -INF)]) == INF


def test_collapse_is_seen_from_one_replica(two_replicas):
    make = lambda: tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 8.0, min_scale=4.0)  # noqa: E731
    driver = Driver(two_replicas, make)
    assert driver.run([(0.25, 0.5), (0, INF), (0, NAN), (1, 1)]) == 0.25 - 2
    with pytest.raises(LossScaleCollapse, match=r"step 3.*scale 4.*'weight'.*NaN"):
        driver.optimizer.raise_if_collapsed()


def test_embeddings_seen_by_two_replicas(two_replicas):
    with two_replicas.scope():
        table = keras.Variable(np.zeros((4, 2), "float32"), name="table")
        unused = keras.Variable([1.0], name="unused")
        optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0)
        optimizer.build([table, unused])

    def step(value):
        # Row 1 twice on each replica, row 2 on the second alone.
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = tf.convert_to_tensor([1, 1 + index])
        values = tf.stack([tf.stack([value, 0.0])] * 2)
        gradient = tf.IndexedSlices(values, rows, tf.constant([4, 2]))
        optimizer.apply([gradient, None], [table, unused])

    run = tf.function(lambda value: two_replicas.run(step, args=(value,)))
    with pytest.warns(UserWarning, match="unused"):
        run(tf.constant(4.0))
    expected = [[0, 0], [-3, 0], [-1, 0], [0, 0]]
    assert same_everywhere(two_replicas, [table])[0].tolist() == expected
    assert optimizer.grad_norm == pytest.approx(math.sqrt(10))
    run(tf.constant(INF))
    assert same_everywhere(two_replicas, [table])[0].tolist() == expected
    assert optimizer.skipped_total == 1


def test_a_checkpoint_restores_every_replica(two_replicas, tmp_path):
    make = scaled(gradient_accumulation_steps=2, momentum=0.5)
    driver = Driver(two_replicas, make)
    # Ends inside a group, whose first microbatch must come back as well.
    driver.run([(0.25, 0.5), (0.75, 0.5), (INF, 0), (0, 0), (1, 2)])
    state = {"optimizer": driver.optimizer, "weight": driver.weight.value}
    path = tf.train.Checkpoint(**state).save(str(tmp_path / "state"))
    other = Driver(two_replicas, make)
    state = {"optimizer": other.optimizer, "weight": other.weight.value}
    tf.train.Checkpoint(**state).restore(path).assert_existing_objects_matched()
    assert other.run([(3, 0)]) == driver.run([(3, 0)])
    assert other.optimizer.scale == 4.0 and other.optimizer.skipped_total == 1


# Whole loops. 16 examples a step, the first half on replica 0.

INPUTS = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
LABELS = np.eye(3, dtype="float32")[np.random.default_rng(1).integers(0, 3, 96)]
# A label whose loss is finite in float32 and whose gradient is not in float16.
OVERFLOWS = 1e30


def train(strategy, loop, labels=LABELS, make=None, policy="mixed_float16", inputs=INPUTS):
    """Trains for six steps; returns the model."""
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(8, "relu", kernel_regularizer="l2"),
                keras.layers.Dense(3, dtype="float32"),
            ]
        )
        optimizer = make() if make else scaled(momentum=0.5, weight_decay=1e-2)()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
        model.compile(optimizer, loss=loss, metrics=metrics, jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(16)
    if loop == "fit":
        model.fit(data.repeat(), steps_per_epoch=6, verbose=0, shuffle=False, validation_data=data)
    else:
        listed = DeviceCallbackList([], add_history=True, model=model, epochs=1, steps=6, verbose=0)
        CustomLoop(model).run(data.repeat(), data, 1, 6, listed)
    return model


@pytest.mark.parametrize(
    ("policy", "loop"),
    [
        slow("float32", "custom"),
        ("mixed_float16", "custom"),
        ("mixed_bfloat16", "fit"),
        slow("float32", "fit"),
        slow("mixed_float16", "fit"),
        slow("mixed_bfloat16", "custom"),
    ],
)
def test_two_replicas_train_as_one(two_replicas, loop, policy):
    make = unscaled(momentum=0.5, weight_decay=1e-2) if policy != "mixed_float16" else None
    one = train(tf.distribute.get_strategy(), loop, make=make, policy=policy)
    two = train(two_replicas, loop, make=make, policy=policy)
    same_everywhere(two_replicas, [*two.trainable_variables, *two.optimizer.variables])
    # 16-bit sums over 8 and over 16 examples round differently.
    tolerance = {"float32": 1e-5, "mixed_float16": 2e-3, "mixed_bfloat16": 3e-2}[policy]
    for ours, theirs in zip(two.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    # The recorded loss and norm are those of the whole batch.
    rows, expected = two.optimizer.history()[1], one.optimizer.history()[1]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(rows[name], expected[name], rtol=tolerance)
    for name, values in one.history.history.items():
        np.testing.assert_allclose(two.history.history[name], values, rtol=tolerance, atol=0.03)


@pytest.mark.parametrize(
    ("replica", "bad", "loop"),
    [
        slow(1, OVERFLOWS, "fit"),
        (1, INF, "custom"),
        slow(1, OVERFLOWS, "custom"),
        slow(1, INF, "fit"),
        slow(0, OVERFLOWS, "fit"),
        slow(0, OVERFLOWS, "custom"),
        slow(0, INF, "fit"),
        slow(0, INF, "custom"),
    ],
)
def test_one_bad_example_on_one_replica_in_a_loop(two_replicas, loop, replica, bad):
    labels = LABELS.copy()
    labels[2 * 16 + 8 * replica + 3, 0] = bad  # In the third step.
    model = train(two_replicas, loop, labels)
    same_everywhere(two_replicas, [*model.trainable_variables, *model.optimizer.variables])
    rows = model.optimizer.history()[1]
    assert rows["skipped_total"].tolist() == [0, 0, 1, 1, 1, 1]
    after = 8 if bad == INF else 4
    assert rows["scale"].tolist() == [8, 8, 8, after, after, after]
    assert rows["skipped_non_finite_loss"].tolist() == [0, 0, *4 * [int(bad == INF)]]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert int(model.optimizer.iterations.numpy()) == 5
    # As if that step had not been.
    kept = np.r_[0:32, 48:96, 0:16]
    clean = train(two_replicas, loop, LABELS[kept], inputs=INPUTS[kept])
    assert clean.optimizer.history()[1]["loss"][2] == rows["loss"][3]


def test_stock_keras_loses_the_weights_in_fit(two_replicas):
    labels = LABELS.copy()
    labels[2 * 16 + 8 + 3, 0] = INF
    model = train(two_replicas, "fit", labels, make=stock())
    assert not np.isfinite(model.get_weights()[-1]).all()
