"""The underflow meter in a user's fit: rows, TensorBoard, result.json, and nothing left behind."""

import keras
import numpy as np
import plain_scripts
import pytest
import tensorflow as tf
from plain_scripts import INPUTS, TARGETS, Left, fit, scaled
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import tfamp
from tests.marks import slow
from tfamp.run import records
from tfamp.telemetry import tensorboard


@pytest.fixture(autouse=True)
def float16():
    keras.config.set_dtype_policy("mixed_float16")


def compiled(optimizer, **values):
    """Not by XLA, which would take seconds each time."""
    return plain_scripts.compiled(optimizer, **({"jit_compile": False} | values))


def metered(path, every=3, **values):
    return tfamp.PrecisionTelemetry(path, underflow_every=every, **values)


def underflow_rows(path):
    return [row for row in Left(path).rows if row["kind"] == "underflow"]


def is_free(model):
    """Whether nothing of a meter is left on a model."""
    metered = getattr(model.train_function, "__self__", None)
    return "train_step" not in vars(model) and metered is None


def test_rows_of_layers_result_and_tensorboard(tmp_path):
    model = compiled(scaled(initial_scale=2.0**-16, dynamic=False))
    fit(model, metered(tmp_path), epochs=2)
    rows = underflow_rows(tmp_path)
    assert [(row["step"], row["epoch"]) for row in rows] == [
        (3, 0), (6, 0), (9, 1), (12, 1), (15, 1)
    ]  # fmt: skip
    first, _ = model.layers
    for row in rows:
        assert (row["of"], row["factor"], row[records.SCALE]) == ("weights", 256.0, 2.0**-16)
        assert set(row["layers"]) == {layer.path for layer in model.layers}
        layer = row["layers"][first.path]
        assert layer["entries"] == 20 == layer["zeros"] + sum(layer["exponents"].values())
        assert layer["lost_fraction"] == layer["lost"] / 20
        lost = sum(each["lost"] for each in row["layers"].values())
        assert row[records.UNDERFLOW] == lost / 25
    left = Left(tmp_path)
    # Also in the row of its step, before it.
    column = zip(left.column("step"), left.column(records.UNDERFLOW), strict=True)
    with_figure = {step: share for step, share in column if share is not None}
    assert with_figure == {row["step"]: row[records.UNDERFLOW] for row in rows}
    lines = [(row["kind"], row["step"]) for row in left.rows]
    assert lines.index(("step", 3)) + 1 == lines.index(("underflow", 3))
    found = left.result["underflow"]
    shares = list(with_figure.values())
    assert (found["of"], found["measured"], found["unjudged_layers"]) == ("weights", 5, 0)
    assert found["mean_lost_fraction"] == pytest.approx(np.mean(shares))
    assert found["max_lost_fraction"] == max(shares) > 0
    assert found["worst_layer"] == first.path
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"tensors": 0})
    events.Reload()
    drawn = events.Tensors(tensorboard.LOST_BY_LAYER + first.path)
    assert [each.step for each in drawn] == [3, 6, 9, 12, 15]
    (histogram, *_) = events.Tensors(tensorboard.EXPONENTS_BY_LAYER + first.path)
    buckets = tensor_util.make_ndarray(histogram.tensor_proto)
    counted = {str(int(left)): int(count) for left, _, count in buckets if count}
    assert counted == rows[0]["layers"][first.path]["exponents"]
    assert events.Tensors(records.UNDERFLOW)[0].step == 3


def test_each_read_has_what_was_measured_since(tmp_path):
    telemetry = metered(tmp_path, 1, log_every=5)
    fit(compiled(scaled(), steps_per_execution=4), telemetry, epochs=2)
    assert [row["step"] for row in underflow_rows(tmp_path)] == list(range(1, 17))


def test_a_later_fit_counts_on_and_meters_its_own_model(tmp_path):
    telemetry = metered(tmp_path, 5)
    first, second = compiled(scaled()), compiled(scaled())
    fit(first, telemetry)
    fit(second, telemetry)
    rows = underflow_rows(tmp_path)
    assert [row["step"] for row in rows] == [5, 10, 15]
    layers = [list(row["layers"]) for row in rows]
    assert layers == [[layer.path for layer in each.layers] for each in (first, second, second)]
    assert is_free(first) and is_free(second)


def operations_of_a_step(callbacks):
    """The operations of the graph in which Keras's step is traced."""
    graphs = []
    model = compiled(scaled())
    step = model.train_step

    def noting(data):
        graphs.append(tf.compat.v1.get_default_graph())
        return step(data)

    model.train_step = noting
    fit(model, None, callbacks=callbacks)
    assert model.train_step is noting
    return [operation.type for operation in graphs[-1].get_operations()]


def test_nothing_is_added_without_it(tmp_path):
    plain = operations_of_a_step([])
    off = operations_of_a_step([tfamp.PrecisionTelemetry(tmp_path / "off")])
    on = operations_of_a_step([metered(tmp_path / "on")])
    assert off == plain
    assert on.count("If") == plain.count("If") + 1


class Breaks(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise RuntimeError("broken off")


def poisoned(inputs):
    """Data that ends in an error at the third batch."""

    def take(step, x, y):
        with tf.control_dependencies([tf.debugging.assert_less(step, tf.constant(2, tf.int64))]):
            return tf.identity(x), y

    data = tf.data.Dataset.from_tensor_slices((inputs, TARGETS)).batch(8)
    return data.enumerate().map(lambda step, pair: take(step, *pair))


@pytest.mark.parametrize(
    ("breaks", "jit_compile"), [("step", False), ("callback", False), slow("step", True)]
)
def test_what_trained_before_is_put_back_after_an_error(tmp_path, breaks, jit_compile):
    model = compiled(scaled(), jit_compile=jit_compile)
    fit(model, tfamp.PrecisionTelemetry(tmp_path / "before"))
    before = model.train_function
    telemetry = metered(tmp_path / "run", 1)
    if breaks == "step":
        with pytest.raises(tf.errors.InvalidArgumentError):
            model.fit(poisoned(INPUTS), verbose=0, shuffle=False, callbacks=[telemetry])
        assert model.train_function is before
    else:
        with pytest.raises(RuntimeError):
            fit(model, telemetry, callbacks=[telemetry, Breaks()])
    assert "train_step" not in vars(model)
    # A later fit knows nothing of the meter.
    steps = model.optimizer.steps_attempted
    measured = len(telemetry.underflow.read())
    model.fit(INPUTS, TARGETS, batch_size=8, verbose=0)
    assert model.optimizer.steps_attempted == steps + 8
    assert is_free(model) and model.train_function is before
    assert not telemetry.underflow.read() and measured <= 3


def test_a_batch_of_another_size_and_run_eagerly(tmp_path):
    model = compiled(scaled(), run_eagerly=True)
    fit(model, metered(tmp_path, 4), batch_size=9)
    assert [row["step"] for row in underflow_rows(tmp_path)] == [4, 8]


@pytest.mark.parametrize(
    "values", [{"underflow_every": 0}, {"underflow_every": 1, "underflow_of": "x"}]
)
def test_bad_arguments_are_refused_at_once(tmp_path, values):
    with pytest.raises(ValueError, match="underflow_"):
        tfamp.PrecisionTelemetry(tmp_path, **values)


def test_a_model_without_float16_is_refused_before_it_trains(tmp_path):
    keras.config.set_dtype_policy("float32")
    model = compiled("sgd")
    with pytest.raises(ValueError, match="mixed_float16"):
        fit(model, metered(tmp_path))
    assert is_free(model)


def test_figures_are_saved_and_restored(tmp_path):
    telemetry = metered(tmp_path)
    fit(compiled(scaled()), telemetry)
    state = telemetry.state()
    again = tfamp.PrecisionTelemetry(tmp_path)
    again.restore(state)
    assert again.result().underflow == telemetry.result().underflow
    assert again.result().underflow.measured == 2
