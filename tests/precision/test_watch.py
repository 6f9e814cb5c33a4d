"""A plain script, with no callback and no loop of tfamp's, is told what became of its steps."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.messages import says
from tfamp.precision import watch


@pytest.fixture
def looks(monkeypatch):
    """A watch that looks when it is told to."""
    own = watch._Watch()
    own._thread = object()  # Never started.
    monkeypatch.setattr(watch, "begin", own.begin)
    return own.look


def stepped(gradients, losses, **values):
    weight = keras.Variable([1.0], name="weight")
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0, min_scale=2.0, **values)
    for gradient, loss in zip(gradients, losses, strict=True):
        optimizer.scale_loss(tf.constant(loss))
        optimizer.apply([tf.constant([gradient])], [weight])
    return optimizer


INF, NAN = float("inf"), float("nan")


def test_each_thing_is_told_once(looks, capsys):
    optimizer = stepped([1.0, NAN, NAN], [1.0, NAN, INF])
    looks()
    said = capsys.readouterr().err
    assert says(said, "2 of 3 steps", "skipped", "loss")
    looks()
    optimizer.apply([tf.constant([INF])])
    looks()
    assert capsys.readouterr().err == ""
    optimizer.apply([tf.constant([INF])])
    looks()
    assert says(capsys.readouterr().err, "collapsed", "step 5")
    # Told, but not taken from the script that asks for it.
    assert optimizer.collapsed_at == 5
    looks()
    assert capsys.readouterr().err == ""
    assert optimizer.take_collapse().step == 5


def test_who_reads_it_otherwise_is_not_told(looks, capsys):
    optimizer = stepped([NAN, INF, INF], [NAN, 1.0, 1.0])
    optimizer.announces = False
    looks()
    assert capsys.readouterr().err == ""
    # What was there when they end is theirs; what comes later is not.
    optimizer.announces = True
    looks()
    assert capsys.readouterr().err == ""
    optimizer.take_collapse()
    optimizer.apply([tf.constant([INF])])
    looks()
    assert "collapsed at step 4" in capsys.readouterr().err


def test_a_healthy_optimizer_is_silent(looks, capsys):
    stepped([1.0, INF, 0.5], [1.0, 2.0, 3.0])
    looks()
    assert capsys.readouterr().err == ""


def test_an_optimizer_that_is_gone_is_told_of_and_forgotten(looks, capsys):
    stepped([NAN], [NAN])
    looks()
    assert "1 of 1 steps" in capsys.readouterr().err
    assert looks.__self__._watched == []


SCRIPT = """
    import os
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import keras, numpy as np, tfamp
    from tfamp.precision import watch
    watch._SECONDS_BETWEEN_LOOKS = 600.0  # However long it compiles, it looks once, at the end.
    keras.config.set_dtype_policy("mixed_float16")
    inputs = np.random.default_rng(0).normal(size=(320, 3)).astype("float32")
    inputs[:160] = np.nan
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4),
        keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(1, dtype="float32")])
    optimizer = tfamp.LossScaleOptimizer("sgd", 256.0, max_skipped_in_a_row=5)
    model.compile(optimizer, loss="mse", jit_compile=JIT)
    model.fit(inputs, inputs.sum(1), batch_size=16, epochs=1, shuffle=False, verbose=0)
    print(optimizer.steps_applied, optimizer.scale)
"""


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_whole_script(jit_compile):
    script = textwrap.dedent(SCRIPT).replace("JIT", str(jit_compile))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "10 256.0\n"
    said = [line for line in done.stderr.splitlines() if line.startswith("tfamp:")]
    assert len(said) == 3
    assert says(said[0], "collapsed", "step 6", "14 steps later", "loss itself", "not finite")
    assert says(said[1], "10 of 20 steps", "skipped")
    assert says(said[2], "moving averages", "sequential/norm", "tfamp.kept_moving_averages(model)")


def test_the_model_is_found_by_its_weights():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(1)]
    )
    other = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(name="other")])
    for each in (model, other):
        each.layers[0].moving_mean.assign(np.full(3, np.nan))
    (found,) = watch.models_of_callers(model.trainable_variables)
    assert found() is model
    assert watch._layers_with_broken_averages([model, None]) == (model.get_layer("norm").path,)
