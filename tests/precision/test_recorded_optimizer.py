"""Steps without a loss scale, one weight at a time."""

import math

import keras
import pytest
import tensorflow as tf

import tfamp
from tfamp.precision.recorded_optimizer import RecordedOptimizer

NAN = math.nan


def test_gradients_of_some_of_the_variables_reach_those():
    weights = [keras.Variable([1.0], name="first"), keras.Variable([1.0], name="second")]
    optimizer = RecordedOptimizer(keras.optimizers.SGD(1.0))
    optimizer.build(weights)
    optimizer.apply([tf.constant([0.25])], weights[1:])
    assert [weight.numpy()[0] for weight in weights] == [1.0, 0.75]


def test_it_is_known_whether_a_steps_loss_was_ever_noted():
    optimizer = RecordedOptimizer(keras.optimizers.SGD(1.0))
    optimizer.scale_loss(tf.constant([1.0, 2.0]))  # No step's loss: it has no place in a row.
    assert optimizer.notes_losses is False
    optimizer.scale_loss(tf.constant(3.0))
    assert optimizer.notes_losses is True
    optimizer.apply([tf.constant([0.25])], [keras.Variable([1.0])])
    rows = optimizer.history()[1]
    assert (rows["loss"].tolist(), rows["learning_rate"].tolist()) == ([3.0], [1.0])


def test_on_replicas_a_rows_loss_is_the_sum_of_theirs(two_replicas):
    with two_replicas.scope():
        weight = keras.Variable([1.0], name="weight")
        optimizer = RecordedOptimizer(keras.optimizers.SGD(1.0))
        optimizer.build([weight])

    def step():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.scale_loss(tf.cast(index, tf.float32) + 1.0)
        optimizer.apply([tf.constant([0.25])], [weight])

    tf.function(lambda: two_replicas.run(step))()
    assert optimizer.history()[1]["loss"].tolist() == [1.0 + 2.0]
    assert weight.value.numpy().tolist() == [0.5]


@pytest.mark.parametrize(
    ("losses", "bad_losses"), [((1.0, 2.0), 0), ((1.0, NAN), 1), ((NAN, 1.0), 1)]
)
def test_a_bad_loss_on_any_replica_is_the_steps(two_replicas, losses, bad_losses):
    with two_replicas.scope():
        weight = keras.Variable([1.0], name="weight")
        optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 8.0)
        optimizer.build([weight])

    def step():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.scale_loss(tf.gather(tf.constant(losses), index))
        optimizer.apply([tf.constant([NAN])], [weight])

    tf.function(lambda: two_replicas.run(step))()
    assert (optimizer.skipped_total, optimizer.skipped_non_finite_loss) == (1, bad_losses)
    assert optimizer.scale == (8.0 if bad_losses else 4.0)
