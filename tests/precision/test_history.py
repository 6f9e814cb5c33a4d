"""The ring buffer on the device."""

import numpy as np
import pytest
import tensorflow as tf

from tfamp.precision.history import StepHistory, fields


def write(history, count, start=0, jit_compile=False):
    """Writes `count` steps whose loss is their number."""

    @tf.function(jit_compile=jit_compile)
    def step(number):
        history.write({name: number if name == "loss" else -1.0 for name in fields()})

    for i in range(start, start + count):
        step(tf.constant(float(i)))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 13])
def test_the_last_steps_come_back_in_order(count, jit_compile):
    history = StepHistory(5)
    write(history, count, jit_compile=jit_compile)
    total, columns = history.read()
    assert total == count
    np.testing.assert_array_equal(columns["loss"], np.arange(max(0, count - 5), count))
    assert set(columns) == set(fields())


def test_reading_since_returns_only_what_is_new():
    history = StepHistory(8)
    write(history, 6)
    total, _ = history.read()
    write(history, 3, start=6)
    assert history.read(since=total)[1]["loss"].tolist() == [6.0, 7.0, 8.0]
    assert history.read(since=9)[1]["loss"].tolist() == []


def test_steps_are_counted_beyond_what_float32_can_count():
    history = StepHistory(3)
    history.count.assign(2**24)
    write(history, 2)
    total, columns = history.read(since=2**24)
    assert total == int(history.written()) == 2**24 + 2
    assert columns["loss"].tolist() == [0.0, 1.0]


def test_every_value_comes_back_under_its_name():
    history = StepHistory(2)
    history.write({name: tf.constant(float(i)) for i, name in enumerate(fields())})
    _, columns = history.read()
    assert {name: column.tolist() for name, column in columns.items()} == {
        name: [float(i)] for i, name in enumerate(fields())
    }


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_write_touches_one_row_and_no_more(jit_compile):
    history = StepHistory(1000)
    one_row = {name: tf.constant(1.0) for name in history.fields}
    write = tf.function(lambda: history.write(one_row), jit_compile=jit_compile)
    operations = write.get_concrete_function().graph.get_operations()
    assert [op.type for op in operations].count("ResourceScatterUpdate") == 1
    # Nothing as long as the buffer is read, made or written.
    shapes = [tensor.shape for op in operations for tensor in op.outputs]
    assert all(1000 not in (shape.as_list() if shape.rank else []) for shape in shapes)


def test_a_step_that_breaks_off_leaves_no_entry():
    history = StepHistory(2)

    @tf.function
    def step(matrix):
        # Long enough for a count that waits for nothing to be first.
        loss = tf.debugging.check_numerics(tf.reduce_sum(matrix @ matrix @ matrix), "planted")
        history.write({name: loss if name == "loss" else 0.0 for name in fields()})

    with pytest.raises(tf.errors.InvalidArgumentError, match="planted"):
        step(tf.fill([600, 600], np.float32("nan")))
    assert history.read()[0] == 0
