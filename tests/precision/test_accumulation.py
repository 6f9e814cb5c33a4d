"""The sum of a group of microbatches, and what a new group begins with."""

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision.accumulation import GradientAccumulator


def made(group_size, *shapes):
    """An accumulator for variables of these shapes, its counter, and what it had made."""
    calls = []

    def add_variable(shape, initializer, dtype, name):
        calls.append((name, initializer, dtype))
        return keras.Variable(np.zeros(shape), dtype=dtype, name=name)

    counter = keras.Variable(0, dtype="int64")
    accumulator = GradientAccumulator(group_size, counter)
    accumulator.build(add_variable, [keras.Variable(np.zeros(shape)) for shape in shapes])
    return accumulator, counter, calls


def test_a_group_of_one_sums_nothing():
    accumulator, _, calls = made(1, (2,))
    assert accumulator.sums == () and calls == []
    assert len(made(2, (2,))[0].sums) == 1


def test_a_group_is_summed_in_float32_and_complete_at_its_last_microbatch():
    accumulator, counter, calls = made(3, (2,), (4, 1))
    assert calls == [(f"accumulator_{i}", "zeros", "float32") for i in range(2)]
    assert [tuple(total.shape) for total in accumulator.sums] == [(2,), (4, 1)]
    rows = tf.IndexedSlices(tf.constant([[6.0]]), tf.constant([2]), tf.constant([4, 1]))
    complete = []
    for _ in range(3):
        # Three times 60000 is more than float16 holds.
        gradients = {0: tf.constant([60000.0, 3.0], tf.float16), 1: rows}
        complete.append(bool(accumulator.add(gradients)))
    assert complete == [False, False, True]
    assert accumulator.mean(0).numpy().tolist() == [60000.0, 3.0]
    assert accumulator.mean(1).numpy().tolist() == [[0.0], [0.0], [6.0], [0.0]]
    accumulator.reset([0])
    assert counter.numpy() == 0
    assert accumulator.sums[0].numpy().tolist() == [0.0, 0.0]
    # Had no gradient in this group.
    assert accumulator.sums[1].numpy().tolist() == [[0.0], [0.0], [18.0], [0.0]]
