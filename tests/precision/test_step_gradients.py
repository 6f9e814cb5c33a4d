"""Gradients with their variables: which are changed, which are refused."""

import keras
import pytest
import tensorflow as tf

from tfamp.precision import step_gradients as module
from tfamp.precision.step_gradients import step_gradients


def variables(*overwrites):
    made = [keras.Variable([1.0]) for _ in overwrites]
    for variable, overwrite in zip(made, overwrites, strict=True):
        variable.overwrite_with_gradient = overwrite
    return made


def slices():
    return tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([3, 3]), tf.constant([5, 1]))


def test_rows_are_summed_and_each_gradient_keeps_its_variable():
    weights = variables(False, True, False)
    made = step_gradients([tf.constant([4.0]), tf.constant([5.0]), slices()], weights)
    assert made.overwrites == [False, True, False]
    assert all(mine is given for mine, given in zip(made.variables, weights, strict=True))
    assert made.values[2].values.numpy().tolist() == [[3.0]]
    halved = made.each(lambda value: value / 2)
    assert [halved.values[0].numpy()[0], halved.values[1].numpy()[0]] == [2.0, 5.0]
    rows = halved.values[2]
    assert (rows.values.numpy().tolist(), rows.indices.numpy().tolist()) == ([[1.5]], [3])
    assert rows.dense_shape.numpy().tolist() == [5, 1]
    assert halved.variables == made.variables and halved.overwrites == made.overwrites


def test_variables_may_come_later_and_what_has_no_gradient_stays_none():
    made = step_gradients([None, tf.constant([4.0])], [])
    assert (made.overwrites, made.variables) == ([False, False], [])
    changed = made.each(lambda value: value + 1)
    assert changed.values[0] is None and changed.values[1].numpy() == [5.0]


def test_a_variable_that_says_nothing_is_a_weight():
    (plain,) = [keras.Variable([1.0]).value]
    assert step_gradients([tf.constant([4.0])], [plain]).overwrites == [False]


def test_one_replica_is_its_own_sum():
    made = step_gradients([tf.constant([4.0], tf.float16)], [])
    assert made.over_replicas() is made


def test_on_replicas_a_next_value_is_the_mean_and_all_else_the_sum(two_replicas):
    with two_replicas.scope():
        weights = variables(False, True, False)

    def replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        mine = tf.cast(tf.reshape(index, [1]), tf.float16) + 1
        made = step_gradients([mine, mine, None], weights)
        sums, scalars = made.over_replicas_with(tf.constant([1.0, 2.0]))
        assert sums.values[2] is None and sums.values[0].dtype == tf.float32
        return sums.values[0], sums.values[1], scalars, made.over_replicas().values[0]

    found = tf.function(lambda: two_replicas.run(replica))()
    for each, expected in zip(found, ([3.0], [1.5], [2.0, 4.0], [3.0]), strict=True):
        for copy in two_replicas.experimental_local_results(each):
            assert copy.numpy().tolist() == expected


def test_on_replicas_rows_are_summed_in_float32(two_replicas):
    def replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Row 3 of both, 60000 of each, which is more than float16 holds; and a row of its own.
        values = tf.constant([[60000.0], [2.0]], tf.float16)
        rows = tf.IndexedSlices(values, tf.stack([3, index]), tf.constant([5, 1]))
        (total,) = step_gradients([rows], []).over_replicas().values
        assert isinstance(total, tf.IndexedSlices)
        return tf.convert_to_tensor(total)

    found = tf.function(lambda: two_replicas.run(replica))()
    for copy in two_replicas.experimental_local_results(found):
        assert copy.numpy()[:, 0].tolist() == [2.0, 2.0, 0.0, 120000.0, 0.0]


@pytest.mark.parametrize(
    ("count", "of", "message"),
    [(1, 2, "1 gradients came for 2 variables"), (2, 1, "2 gradients came for 1 variables")],
)
def test_what_does_not_go_together_is_refused(count, of, message):
    with pytest.raises(ValueError, match=message):
        step_gradients(count * [tf.constant([1.0])], variables(*of * [False]))


def test_no_gradient_and_no_replica_context_are_refused(two_replicas):
    with pytest.raises(ValueError, match="no gradient for any of 2 variables"):
        step_gradients([None, None], [])
    with two_replicas.scope(), pytest.raises(ValueError, match="in cross-replica context"):
        step_gradients([tf.constant([1.0])], [])


def test_changed_changes_the_rows_that_are_there():
    rows = module.changed(slices(), lambda value: value * 10)
    assert rows.values.numpy().tolist() == [[10.0], [20.0]]
    assert (rows.indices.numpy().tolist(), rows.dense_shape.numpy().tolist()) == ([3, 3], [5, 1])
    assert module.changed(tf.constant([2.0]), lambda value: value * 10).numpy() == [20.0]
