"""Layers' calls are seen from outside, in the thread that asked for it, and then no more."""

import threading

import keras
import pytest
import tensorflow as tf

from tfamp.precision.layer_calls import is_in_trace, seen_calls
from tfamp.precision.policy import all_layers


@pytest.fixture
def model():
    inner = keras.Sequential([keras.Input([3]), keras.layers.Dense(4, name="inner")])
    return keras.Sequential([keras.Input([3]), inner, keras.layers.Dense(2, name="outer")])


def test_sees_nested_layers_in_the_order_of_their_return(model):
    seen = []
    with seen_calls(all_layers(model), lambda layer, out: seen.append(layer.name) or out):
        model(tf.ones([1, 3]))
    assert [name for name in seen if name in ("inner", "outer")] == ["inner", "outer"]
    seen.clear()
    model(tf.ones([1, 3]))
    assert not seen


def test_hands_on_what_is_returned_instead(model):
    with seen_calls([model.layers[-1]], lambda layer, out: out + 1.0):
        changed = model(tf.ones([1, 3]))
    assert changed.numpy() == pytest.approx(model(tf.ones([1, 3])).numpy() + 1.0)


def test_building_a_model_is_no_call(model):
    seen = []
    with seen_calls(all_layers(model), lambda layer, out: seen.append(layer) or out):
        keras.Model(model.inputs, model(model.inputs[0]))
    assert not seen


def test_leaves_the_class_as_it_was_after_an_error(model):
    before = keras.layers.Layer.__call__
    with pytest.raises(ZeroDivisionError), seen_calls(all_layers(model), lambda layer, out: 1 / 0):
        model(tf.ones([1, 3]))
    assert keras.layers.Layer.__call__ is before


def test_contexts_of_two_threads_end_in_any_order(model):
    before = keras.layers.Layer.__call__
    seen = {"first": [], "second": []}
    opened, closed = threading.Event(), threading.Event()

    def second():
        layers = all_layers(model)
        with seen_calls(layers, lambda layer, out: seen["second"].append(layer.name) or out):
            opened.set()
            closed.wait(60)
            model(tf.ones([1, 3]))

    thread = threading.Thread(target=second)
    with seen_calls(all_layers(model), lambda layer, out: seen["first"].append(layer.name) or out):
        thread.start()
        assert opened.wait(60)
        model(tf.ones([1, 3]))
    closed.set()
    thread.join()
    assert seen["first"] and seen["first"] == seen["second"]
    assert keras.layers.Layer.__call__ is before


def test_knows_what_lives_in_a_loop_alone():
    found = []

    @tf.function
    def step(x):
        graph = x.graph
        found.append(is_in_trace(x, graph))

        def body(i, y):
            found.append(is_in_trace(y, graph))
            return i + 1, y + 1.0

        return tf.while_loop(lambda i, y: i < 2, body, [0, x])[1]

    step.get_concrete_function(tf.TensorSpec([]))
    assert found[0] and not any(found[1:])
    assert is_in_trace(tf.ones([]), None)
