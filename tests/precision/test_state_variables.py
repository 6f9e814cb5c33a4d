"""The names, the order and the starts of what an optimizer keeps on the device."""

import keras
import numpy as np
import tensorflow as tf

from tfamp.precision import state_variables
from tfamp.precision.state_variables import StateVariables, device_variable


def made(scale=8.0, hysteresis=3):
    """The variables, and those of them that the optimizer was asked to add."""
    added = []

    def add_variable(shape, initializer, dtype, aggregation, name):
        assert aggregation == "none"
        value = initializer(shape, dtype=dtype)
        added.append(keras.Variable(value, dtype=dtype, trainable=False, name=name))
        return added[-1]

    return StateVariables(add_variable, scale, hysteresis), added


def described(variables):
    return [(each.name, each.dtype, each.numpy().item()) for each in variables]


def test_a_checkpoint_knows_them_by_position():
    state, added = made()
    assert described(added) == [
        ("step_counter", "int64", 0),
        ("dynamic_scale", "float32", 8.0),
        ("steps_attempted", "int64", 0),
        ("skipped_total", "int64", 0),
        ("skipped_in_a_row", "int64", 0),
        ("hysteresis_left", "int64", 3),
        ("collapsed_at", "int64", 0),
        ("culprit", "int64", -1),
        ("culprit_has_nan", "int64", 0),
        ("microbatch", "int64", 0),
        ("last_loss", "float32", 0.0),
        ("grad_norm", "float32", 0.0),
    ]
    assert described(state.latest) == [
        ("skipped_non_finite_loss", "int64", 0),
        ("overflows_in_a_row", "int64", 0),
        ("last_clean_scale", "float32", 8.0),
        ("recovery_scale", "float32", 0.0),
        ("noted_non_finite_loss", "int64", 0),
    ]
    by_name = {
        "growth_counter": "step_counter", "scale": "dynamic_scale", "attempted": "steps_attempted",
        "loss": "last_loss",
    }  # fmt: skip
    for name, variable in vars(state).items():
        if name != "latest":
            assert variable.name == by_name.get(name, name)


def test_a_state_is_read_and_taken_on():
    state, _ = made()
    before = state.scale_state()
    assert (before.scale.numpy(), before.hysteresis_left.numpy()) == (8.0, 3)
    after = before._replace(
        scale=tf.constant(2.0), recovery_scale=tf.constant(5.0), attempted=before.attempted + 7
    )
    state.become(after, before)
    assert [value.numpy() for value in state.scale_state()] == [value.numpy() for value in after]
    assert (state.read("scale"), state.read("recovery_scale"), state.read("attempted")) == (2, 5, 7)


def test_what_a_step_did_not_change_is_not_written():
    state, _ = made()
    before = state.scale_state()
    state.skipped_total.assign(4)
    state.become(before._replace(scale=tf.constant(4.0)), before)
    assert (state.read("skipped_total"), state.read("scale")) == (4, 4.0)


def test_a_property_reads_through_a_kind():
    class Optimizer:
        _state, _ = made()
        count = state_variables.reading("hysteresis_left", float, "What is left.")

    assert (Optimizer().count, type(Optimizer().count)) == (3.0, float)
    assert Optimizer.count.__doc__ == "What is left."


def test_a_variable_of_the_device_is_no_weight_and_is_not_cast():
    variable = device_variable("some", np.array([1, 2]), "float64")
    assert variable.value.numpy().tolist() == [1.0, 2.0] and variable.dtype == "float64"
    assert (variable.trainable, variable.aggregation) == (False, "none")

    class Reads(keras.layers.Layer):
        def call(self, inputs):
            return tf.convert_to_tensor(variable.value)

    assert Reads(dtype="mixed_float16")(tf.ones([1])).dtype == tf.float64
    assert (variable.name, device_variable("other", 1).dtype) == ("some", "float32")
