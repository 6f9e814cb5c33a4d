"""Telemetry in loops that a user writes by hand."""

import json
import math

import keras
import pytest
import tensorflow as tf
from plain_scripts import INPUTS, TARGETS, Left, scaled, tiny_model

import tfamp
from tests.messages import naming
from tfamp.run import records


@pytest.fixture
def model():
    keras.config.set_dtype_policy("mixed_float16")
    return tiny_model()


def step_of(model, optimizer, is_scaled):
    """A training step, as in any guide."""
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            scaled_loss = optimizer.scale_loss(loss) if is_scaled else loss
        optimizer.apply(tape.gradient(scaled_loss, model.trainable_variables))
        return loss

    return step


def batches(bad=()):
    targets = TARGETS.copy()
    for batch in bad:
        targets[8 * batch] = math.inf
    return tf.data.Dataset.from_tensor_slices((INPUTS, targets)).batch(8)


def test_rows_as_in_fit(tmp_path, model):
    optimizer = scaled(0.01, counts_zeros=True)
    step = step_of(model, optimizer, is_scaled=True)
    losses = []
    with tfamp.telemetry(
        tmp_path, model=model, optimizer=optimizer, batch_size=8, log_every=3
    ) as t:
        for _ in range(2):
            for x, y in batches(bad=[4]):
                loss = step(x, y)
                losses.append(float(loss))
                t.step(loss, accuracy=tf.constant(0.25))
            t.epoch(validation_loss=0.5, val_accuracy=tf.constant(0.75), learning=1)
        for x, y in batches().take(2):
            t.step(step(x, y))
    left = Left(tmp_path)
    assert left.column("step") == list(range(1, 19))
    assert left.column(records.TRAIN_LOSS)[:16] == losses
    assert losses[4] == math.inf
    assert left.column(records.SKIPPED_TOTAL) == [0] * 4 + [1] * 8 + [2] * 6
    assert left.column(records.TRAIN_ACCURACY) == [0.25] * 16 + [None] * 2
    assert None not in left.column(records.GRADIENT_NORM) + left.column(records.GRADIENT_ZEROS)
    assert [row["epoch"] for row in left.epochs] == [0, 1, 2]
    assert left.epochs[0][records.VALIDATION_ACCURACY] == 0.75
    assert left.epochs[0]["train/learning"] == 1.0
    assert records.VALIDATION_LOSS not in left.epochs[2]
    result = left.result
    assert (result["status"], result["loop"], result["epochs"]) == ("completed", "custom", 3)
    assert (result["steps_attempted"], result["steps_applied"]) == (18, 16)
    assert (result["validation_loss"], result["validation_accuracy"]) == (0.5, 0.75)
    assert result["loss_scale"]["first_skips"] == [5, 13]
    assert left.config["config"]["policy"] == "mixed_float16"
    # After the compiling first step 2, 3 and 4 to 6; an evaluation may stand behind 8.
    timed = [row["step"] for row in left.steps if records.STEP_TIME in row]
    assert timed == [3, 6, 11, 14]
    assert result["examples_per_sec"] > 0
    assert {path.name for path in tmp_path.iterdir()} >= {"train", "validation"}


@pytest.mark.parametrize("wrapped", [False, True])
def test_plain_keras_optimizers(tmp_path, model, wrapped):
    optimizer = keras.optimizers.SGD(0.0)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    step = step_of(model, optimizer, is_scaled=wrapped)
    t = tfamp.telemetry(tmp_path, optimizer=optimizer, log_every=4)
    with t:
        for x, y in batches(bad=[2] if wrapped else []):
            t.step(step(x, y))
    left = Left(tmp_path)
    # Each step's loss was given, so each has a row.
    assert left.column("step") == list(range(1, 9))
    assert None not in left.column(records.TRAIN_LOSS)
    scales = [None] * 3 + [2.0**14] + [None] * 3 + [2.0**14] if wrapped else [None] * 8
    assert left.column(records.SCALE) == scales
    assert left.result["loss_scale"] is None or left.result["loss_scale"]["skipped"] == 1


def test_several_optimizers_by_name(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    first, second = scaled(), scaled(initial_scale=8.0)
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    with tfamp.telemetry(tmp_path, optimizers={"a": first, "b": second}, log_every=4) as t:
        for i in range(8):
            first.apply([tf.constant([math.inf if i == 2 else 1.0])], variables[:1])
            if i % 2:
                # Two updates in every second step.
                second.apply([tf.constant([1.0])], variables[1:])
                second.apply([tf.constant([math.inf])], variables[1:])
            t.step(generator_loss=float(i))
    left = Left(tmp_path)
    assert left.column("step") == list(range(1, 9))
    assert left.column("train/generator_loss") == [float(i) for i in range(8)]
    assert left.column("scale/skipped_total/a") == [0] * 2 + [1] * 6
    assert left.column("scale/skipped_total/b") == [None, 1, None, 2, None, 3, None, 4]
    assert left.column("scale/value/b") == [None, 8.0, None, 4.0, None, 2.0, None, 1.0]
    assert records.SCALE not in left.steps[0]
    result = left.result
    assert (result["steps_attempted"], result["loss_scale"]) == (8, None)
    a, b = result["optimizers"]["a"], result["optimizers"]["b"]
    assert (a["steps_attempted"], a["steps_applied"], a["loss_scale"]["skipped"]) == (8, 7, 1)
    assert (b["steps_attempted"], b["steps_applied"], b["loss_scale"]["final"]) == (8, 4, 0.5)
    assert left.config["optimizers"]["b"]["initial_loss_scale"] == 8.0


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("out of luck"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_an_exception_is_written_down_and_goes_on(tmp_path, model, error, status):
    optimizer = scaled()
    step = step_of(model, optimizer, is_scaled=True)
    with pytest.raises(type(error)), tfamp.telemetry(tmp_path, optimizer=optimizer) as t:
        for x, y in batches().take(3):
            t.step(step(x, y))
        raise error
    left = Left(tmp_path)
    assert left.column("step") == [1, 2, 3]
    assert left.result["status"] == status
    assert left.result["error"] == ("RuntimeError: out of luck" if status == "failed" else None)
    assert left.rows[-1]["event"] == status


def test_a_collapse_reaches_the_loop_and_the_result(tmp_path, model):
    optimizer = scaled(max_skipped_in_a_row=2)
    step = step_of(model, optimizer, is_scaled=True)
    with (
        pytest.raises(tfamp.LossScaleCollapse),
        tfamp.telemetry(tmp_path, optimizer=optimizer, log_every=2) as t,
    ):
        for x, y in batches(bad=range(8)):
            t.step(step(x, y))
    left = Left(tmp_path)
    assert left.column("step") == [1, 2, 3, 4]
    assert left.result["error"].startswith("LossScaleCollapse: ")
    assert left.result["loss_scale"]["collapsed_at"] == 3


def test_the_same_model_goes_on_from_fit(tmp_path, model):
    model.compile(scaled(), loss="mse")
    model.fit(INPUTS, TARGETS, batch_size=8, verbose=0,
              callbacks=[tfamp.PrecisionTelemetry(tmp_path)])  # fmt: skip
    step = step_of(model, model.optimizer, is_scaled=True)
    with tfamp.telemetry(tmp_path, model=model) as t:
        for x, y in batches():
            t.step(step(x, y))
    left = Left(tmp_path)
    assert left.column("step") == list(range(1, 17))
    assert [row["epoch"] for row in left.epochs] == [0, 1]
    # Another model's run takes the place of this one, which is kept.
    with tfamp.telemetry(tmp_path, model=tiny_model(), optimizer=scaled()) as t:
        t.step(1.0)
    assert Left(tmp_path).column("step") == [1]
    (aside,) = tmp_path.glob("replaced-*")
    assert json.loads((aside / "result.json").read_text())["steps_attempted"] == 16


def test_what_cannot_be_is_refused_in_the_scripts_own_terms(tmp_path, model):
    with pytest.raises(ValueError, match=naming("log_every=0", 1)):
        tfamp.telemetry(tmp_path, optimizer=scaled(), log_every=0)
    with pytest.raises(ValueError, match=naming("optimizer", "optimizers", "one of the two")):
        tfamp.telemetry(tmp_path, optimizer=scaled(), optimizers=[scaled()])
    with pytest.raises(ValueError, match=naming("no optimizer", "optimizer=")):
        tfamp.telemetry(tmp_path, model=model)
    with pytest.raises(ValueError, match=naming("optimizers[1]", "'adam'", "Keras")):
        tfamp.telemetry(tmp_path, optimizers=[scaled(), "adam"])
    shape = pytest.raises(ValueError, match=naming("loss", "(3,)", "reduce_mean(loss)"))
    with tfamp.telemetry(tmp_path, optimizer=scaled()) as t, shape:
        t.step(loss=tf.zeros(3))
    with pytest.raises(ValueError, match=naming("overwrite=True", "run_directory")):
        tfamp.telemetry(tmp_path, optimizer=scaled(), overwrite=False).__enter__()
