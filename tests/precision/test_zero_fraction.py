"""Which share of each step's gradient was zero or not finite, as the optimizers' history has it."""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop

INF, NAN = math.inf, math.nan


def scaled(counts_zeros=True, **values):
    inner = keras.optimizers.SGD(0.5, **values)
    return tfamp.LossScaleOptimizer(inner, 8.0, counts_zeros=counts_zeros)


def unscaled(counts_zeros=True, **values):
    return RecordedOptimizer(keras.optimizers.SGD(0.5, **values), counts_zeros=counts_zeros)


MAKES = pytest.mark.parametrize("make", [scaled, unscaled])
JIT = pytest.mark.parametrize("jit_compile", [False, True])


def drive(optimizer, steps, jit_compile=False):
    """Applies lists of four gradient entries to two weights; returns the two columns."""
    weights = [keras.Variable(np.ones(3, "float32"), name="first"),
               keras.Variable([1.0], name="second")]  # fmt: skip
    optimizer.build(weights)

    @tf.function(jit_compile=jit_compile)
    def step(gradient):
        optimizer.apply([gradient[:3], gradient[3:]], weights)

    for gradient in steps:
        step(tf.constant(gradient, tf.float32))
    return columns(optimizer)


def columns(optimizer):
    rows = optimizer.history()[1]
    return rows["grad_zero_fraction"].tolist(), rows["grad_non_finite_fraction"].tolist()


@MAKES
@JIT
def test_every_step_has_its_shares_also_a_skipped_one(make, jit_compile):
    optimizer = make()
    steps = [[1, 0, 2, 0], [INF, 0, NAN, 1], [1, 2, 3, 4], [0, 0, 0, 0], [NAN] * 4]
    zeros, non_finite = drive(optimizer, steps, jit_compile)
    assert zeros == [0.5, 0.25, 0.0, 1.0, 0.0]
    assert non_finite == [0.0, 0.5, 0.0, 0.0, 1.0]
    assert optimizer.skipped_total == (2 if make is scaled else 0)


@MAKES
def test_nothing_is_counted_unless_asked_for(make):
    zeros, non_finite = drive(make(counts_zeros=False), [[1, 0, 2, 0], [INF, 0, 0, 1]])
    np.testing.assert_array_equal([zeros, non_finite], np.full((2, 2), NAN))


@MAKES
def test_counting_changes_neither_weights_nor_saved_state(make):
    found = []
    for counts in (False, True):
        optimizer = make(counts_zeros=counts, momentum=0.5)
        drive(optimizer, [[1, 0, 2, 0], [0.5, 0, 0, 1]])
        values = [(v.path.split("/", 1)[-1], v.numpy()) for v in optimizer.variables]
        found.append((values, [w.numpy() for w in optimizer._trainable_variables]))
    (plain, plain_weights), (counting, counting_weights) = found
    assert [name for name, _ in plain] == [name for name, _ in counting]
    for (_, one), (_, other) in zip(plain, counting, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(plain_weights, counting_weights, strict=True):
        np.testing.assert_array_equal(one, other)


@MAKES
@JIT
def test_accumulation_counts_the_sum_of_the_group_once(make, jit_compile):
    optimizer = make(gradient_accumulation_steps=2)
    # Entry 0 cancels in the sum and entry 1 is zero in both; the rest is zero in one of two.
    group = [[1, 0, 2, 0], [-1, 0, 0, 3]]
    zeros, non_finite = drive(optimizer, [*group, [INF, 0, 0, 1], [1, 0, 0, 1]], jit_compile)
    np.testing.assert_array_equal(zeros, [NAN, 0.5, NAN, 0.5])
    np.testing.assert_array_equal(non_finite, [NAN, 0.0, NAN, 0.25])


@JIT
@pytest.mark.parametrize("accumulation", [None, 2])
def test_an_embedding_counts_the_rows_that_were_looked_up(accumulation, jit_compile):
    table = keras.Variable(np.zeros((5, 2), "float32"))
    optimizer = scaled(gradient_accumulation_steps=accumulation)
    optimizer.build([table])

    @tf.function(jit_compile=jit_compile)
    def step(values):
        slices = tf.IndexedSlices(values, tf.constant([2, 2, 4]), tf.constant([5, 2]))
        optimizer.apply([slices], [table])

    for _ in range(accumulation or 1):
        # Rows 2 and 4 of 5; the two parts of row 2 cancel in one entry.
        step(tf.constant([[3.0, 1.0], [-3.0, 1.0], [INF, 2.0]]))
    zeros, non_finite = columns(optimizer)
    # The accumulated group is dense: its three other rows count, as zeros.
    assert zeros[-1] == np.float32(1 / 4 if accumulation is None else 7 / 10)
    assert non_finite[-1] == np.float32(1 / 4 if accumulation is None else 1 / 10)


@MAKES
@pytest.mark.parametrize("accumulation", [None, 2])
def test_two_replicas_count_their_sum(two_replicas, make, accumulation):
    with two_replicas.scope():
        weight = keras.Variable(np.ones(4, "float32"))
        optimizer = make(gradient_accumulation_steps=accumulation)
        optimizer.build([weight])

    def replica_step(gradients):
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([gradients[index]], [weight])

    @tf.function
    def step(gradients):
        two_replicas.run(replica_step, args=(gradients,))

    # The first entries cancel, the second are zero on both, infinities of two signs make a NaN.
    for pair in ([[1, 0, 0, 2], [-1, 0, 3, 2]], [[INF, 0, 1, INF], [-INF, 0, 0, 1]]):
        for _ in range(accumulation or 1):
            step(tf.constant(pair, tf.float32))
    zeros, non_finite = columns(optimizer)
    every = accumulation or 1
    assert zeros[every - 1 :: every] == [0.5, 0.25]
    assert non_finite[every - 1 :: every] == [0.0, 0.5]
    rows = two_replicas.experimental_local_results(optimizer._record.history.rows.value)
    np.testing.assert_array_equal(rows[0].numpy(), rows[1].numpy())


QUICK = (
    ("mixed_float16", False, "custom"),
    ("mixed_float16", True, "fit"),
    ("float16", False, "fit"),
    ("mixed_bfloat16", True, "custom"),
)


class Small(keras.losses.Loss):
    """The sum of the predictions times 2^-20: the gradient of each is a float16 subnormal."""

    def call(self, y_true, y_pred):
        return keras.ops.sum(keras.ops.cast(y_pred, "float32"), axis=-1) * 2.0**-20


@pytest.mark.parametrize(
    ("policy", "jit_compile", "loop"),
    [
        case if case in QUICK else slow(*case)
        for case in itertools.product(
            ("mixed_float16", "float16", "mixed_bfloat16"), (False, True), ("fit", "custom")
        )
    ],
)
def test_what_underflows_without_a_scale_is_seen(policy, loop, jit_compile):
    # The gradient of weight i is 2^-20 times input i: 2^-20, 2^-23, 2^-25 and 0. In float16 the
    # third, half the smallest number, rounds to zero; in bfloat16, or times a scale, it does not.
    inputs = np.array([[1.0, 2.0**-3, 2.0**-5, 0.0]] * 3, "float32")
    targets = np.zeros((3, 1), "float32")
    found = {}
    for make in (scaled, unscaled):
        keras.config.set_dtype_policy(policy)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(make(), loss=Small(), jit_compile=jit_compile)
        if loop == "fit":
            model.fit(inputs, targets, batch_size=1, verbose=0)
        else:
            data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(1).repeat()
            listed = DeviceCallbackList([], model=model, epochs=1, steps=3, verbose=0)
            CustomLoop(model).run(data, None, 1, 3, listed)
        found[make] = columns(model.optimizer)
    lost = 0.25 if policy == "mixed_bfloat16" else 0.5
    assert found == {scaled: ([0.25] * 3, [0.0] * 3), unscaled: ([lost] * 3, [0.0] * 3)}


def apply_one(optimizer, weight, gradient):
    optimizer.apply([gradient], [weight])


@MAKES
def test_the_graph_counts_only_where_asked_for(make):
    sums = {}
    for counts in (False, True):
        optimizer = make(counts_zeros=counts)
        weight = keras.Variable(np.ones(4, "float32"))
        optimizer.build([weight])
        step = tf.function(functools.partial(apply_one, optimizer, weight))
        graph = step.get_concrete_function(tf.TensorSpec([4], tf.float32)).graph.as_graph_def()
        bodies = [graph.node, *(function.node_def for function in graph.library.function)]
        sums[counts] = sum(
            node.op == "Sum" and node.attr["T"].type == tf.int64.as_datatype_enum
            for body in bodies
            for node in body
        )
    # One for the zeros, one in a branch for what is not finite.
    assert sums == {False: 0, True: 2}


@MAKES
def test_config_round_trip(make):
    for counts in (False, True):
        optimizer = make(counts_zeros=counts)
        config = optimizer.get_config()
        assert config.get("counts_zeros", False) is counts
        assert ("counts_zeros" in config) is counts
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert type(again) is type(optimizer) and again.counts_zeros is counts
        assert again.get_config() == config


@pytest.mark.parametrize("before", [False, True])
def test_a_file_loads_whether_or_not_it_counted(tmp_path, before):
    def model_with(counts):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(scaled(counts_zeros=counts), loss="mse")
        model.optimizer.build(model.trainable_variables)
        return model

    source = model_with(before)
    # Its square fits float32, times the scale of 8 no more.
    source.train_on_batch(np.array([[1e19, 1.0]]), np.full((1, 1), 1e19))
    assert source.optimizer.skipped_total == 1
    source.save_weights(tmp_path / "model.weights.h5")
    model = model_with(not before)
    model.load_weights(tmp_path / "model.weights.h5")
    assert (model.optimizer.scale, model.optimizer.skipped_total) == (4.0, 1)
    source.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").optimizer.counts_zeros is before
