"""The thread that looks, when it ends, and what is told of moving averages."""

import atexit
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tfamp.precision import watch


class Told:
    """Stands for an optimizer and for what is told of it."""

    def __init__(self, fails=False):
        self.asked, self.fails = threading.Event(), fails
        self.times = 0

    def tell(self):
        self.times += 1
        self.asked.set()
        if self.fails:
            raise RuntimeError


@pytest.fixture
def own(monkeypatch):
    """A watch of its own that looks all the time, and what it asked for at the end."""
    at_exit = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_LOOKS", 0.01)
    made = watch._Watch()
    made.at_exit = at_exit
    yield made
    made._end.set()
    if isinstance(made._thread, threading.Thread):
        made._thread.join()


def test_one_daemon_thread_looks_at_all_until_the_end(own):
    first, second = Told(fails=True), Told()
    for told in (first, second):
        own.begin(told, told)
        assert told.asked.wait(60)
    thread = own._thread
    assert (thread.name, thread.daemon, thread.is_alive()) == ("tfamp-watch", True, True)
    assert own.at_exit == [own._at_exit]
    own.at_exit[0]()
    assert not thread.is_alive()
    # And once more at the very end.
    times = second.times
    own._at_exit()
    assert second.times == times + 1


def test_the_end_of_a_watch_that_never_began(own):
    own._at_exit()
    assert own._thread is None


def test_what_is_gone_is_told_for_the_last_time_also_where_telling_fails(own):
    own._thread = object()  # Never started.
    optimizer, told = Told(), Told(fails=True)
    own.begin(optimizer, told)
    own.look()
    del optimizer
    own.look()
    assert (told.times, own._watched) == (2, [])


def broken_model():
    layers = [keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((1,)), *layers], name="model")
    model.layers[0].moving_mean.assign([np.nan])
    return model


@pytest.mark.parametrize("is_on", [True, False])
def test_broken_averages_are_told_once_whoever_tells_the_rest(is_on, monkeypatch, capsys):
    began = []
    monkeypatch.setattr(watch, "begin", lambda optimizer, told: began.append(told))
    model = broken_model()
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0)
    optimizer.build(model.trainable_variables)
    (told,) = began
    told.is_on = is_on

    def skip():
        optimizer.scale_loss(tf.constant(np.nan))
        weights = model.trainable_variables
        optimizer.apply([tf.fill(v.shape, np.float32("nan")) for v in weights], weights)

    told.tell()
    assert capsys.readouterr().err == ""
    told.keeps_averages = True
    skip()
    told.tell()
    assert "moving averages" not in capsys.readouterr().err
    told.keeps_averages = False
    told.tell()
    assert "The moving averages of model/norm took in a batch" in capsys.readouterr().err
    skip()
    told.tell()
    assert capsys.readouterr().err == ""


def test_the_end_of_fit_tells(monkeypatch, capsys):
    monkeypatch.setattr(watch, "begin", lambda optimizer, told: None)
    weight = keras.Variable([1.0])
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0)
    optimizer.scale_loss(tf.constant(np.nan))
    optimizer.apply([tf.constant([np.nan])], [weight])
    assert capsys.readouterr().err == ""
    optimizer.finalize_variable_values([weight])
    assert "tfamp: 1 of 1 steps so far were skipped" in capsys.readouterr().err


def test_weights_that_are_broken_are_no_averages():
    model = broken_model()
    model.layers[0].moving_mean.assign([0.0])
    model.layers[0].gamma.assign([np.nan])
    assert watch._layers_with_broken_averages([None, model]) == ()


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (1.0, "float32", True),
        (np.nan, "float16", False),
        (np.inf, "float32", False),
        (3, "int32", True),
    ],
)
def test_whether_a_variable_is_finite(value, dtype, expected):
    variable = keras.Variable(np.array([1, value]), dtype=dtype, trainable=False)
    assert watch.is_finite(variable) is expected
