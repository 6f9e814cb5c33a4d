"""The callback in a script that has never heard of tfamp's trainer."""

import json
import math
import warnings

import keras
import numpy as np
import pytest

import tfamp
from tests.messages import naming, says
from tfamp.run import records

INPUTS = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
TARGETS = (INPUTS[:, 0] > 0).astype("float32")


def fit(tmp_path, optimizer, *, policy="float32", epochs=2, log_every=3, model=None, **values):
    """A plain compile and fit of 8 steps an epoch; returns the rows and the result."""
    keras.config.set_dtype_policy(policy)
    if model is None:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, dtype="float32")])
    model.compile(
        optimizer, loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    telemetry = tfamp.PrecisionTelemetry(tmp_path / "run", log_every=log_every, batch_size=8)
    model.fit(INPUTS, TARGETS, batch_size=8, epochs=epochs, verbose=0, shuffle=False,
              validation_data=(INPUTS, TARGETS), callbacks=[telemetry], **values)  # fmt: skip
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    return rows, json.loads((tmp_path / "run" / "result.json").read_text())


def test_a_row_for_every_step_and_exact_losses(tmp_path):
    rows, result = fit(tmp_path, tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.0)))
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 17))
    assert [row["epoch"] for row in steps] == [0] * 8 + [1] * 8
    # With a learning rate of 0 the second epoch repeats the first, and the epoch's loss is the
    # mean of its steps.
    losses = [row[records.TRAIN_LOSS] for row in steps]
    np.testing.assert_allclose(losses[:8], losses[8:], rtol=1e-6)
    epochs = [row for row in rows if row["kind"] == "epoch"]
    np.testing.assert_allclose(epochs[0][records.TRAIN_LOSS], np.mean(losses[:8]), rtol=1e-5)
    # Accuracy stands on marks (3, 6, 8 of each epoch) and is that of the window.
    marks = [row for row in steps if records.TRAIN_ACCURACY in row]
    assert [row["step"] for row in marks] == [3, 6, 8, 11, 14, 16]
    mean = np.average([row[records.TRAIN_ACCURACY] for row in marks[:3]], weights=[3, 3, 2])
    np.testing.assert_allclose(mean, epochs[0][records.TRAIN_ACCURACY], rtol=1e-5)
    assert result["status"] == "completed" and result["epochs"] == 2
    assert result["loss_scale"] == {"mode": "dynamic", "initial": 2.0**15, "final": 2.0**15,
                                    "min": 2.0**15, "max": 2.0**15, "skipped": 0,
                                    "skipped_non_finite_loss": 0, "collapsed_at": None,
                                    "first_skips": []}  # fmt: skip
    # The clock began after the first step, which compiled.
    assert result["step_time_ms"]["n"] == 15


def test_skips_are_seen_at_their_step(tmp_path):
    class Poisoned(keras.losses.Loss):
        """Infinite on the steps that hold a marked target."""

        def call(self, y_true, y_pred):
            return keras.ops.where(y_true > 5, math.inf, 1.0) * keras.ops.square(y_pred)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.01)), loss=Poisoned())
    targets = np.zeros(64, "float32")
    targets[[16, 17, 40]] = 9  # in batches 3 and 6
    telemetry = tfamp.PrecisionTelemetry(tmp_path / "run", log_every=100)
    model.fit(INPUTS, targets, batch_size=8, verbose=0, shuffle=False, callbacks=[telemetry])
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["loss_scale"]["first_skips"] == [3, 6]
    assert (result["steps_attempted"], result["steps_applied"]) == (8, 6)
    scales = [row[records.SCALE] for row in rows if row["kind"] == "step"]
    # A loss that is infinite itself says nothing of the scale.
    assert scales == [2.0**15] * 8
    assert result["loss_scale"]["skipped_non_finite_loss"] == 2
    assert rows[2][records.TRAIN_LOSS] == math.inf
    assert records.VALIDATION_ACCURACY not in rows[-1]


@pytest.mark.parametrize("counts_zeros", [False, True])
def test_shares_of_the_gradient_are_exact_where_they_were_counted(tmp_path, counts_zeros):
    class Planted(keras.losses.Loss):
        """Its gradient is the targets' own."""

        def call(self, y_true, y_pred):
            return keras.ops.sum(keras.ops.where(y_true == 0, 0.0, y_true * y_pred), axis=-1)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    inner = keras.optimizers.SGD(0.0)
    model.compile(tfamp.LossScaleOptimizer(inner, 8.0, counts_zeros=counts_zeros), loss=Planted())
    # Of 4 x 4 weights and 4 biases the last outputs' are zero in step 1, infinite in step 2.
    targets = np.array([[1, 1, 1, 0], [1, 1, math.inf, 0]], "float32")
    telemetry = tfamp.PrecisionTelemetry(tmp_path / "run", log_every=100)
    model.fit(np.ones((2, 4), "float32"), targets, batch_size=1, verbose=0, shuffle=False,
              callbacks=[telemetry])  # fmt: skip
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    shares = [
        (row.get(records.GRADIENT_ZEROS), row.get(records.GRADIENT_NON_FINITE)) for row in rows[:2]
    ]
    if counts_zeros:
        # The second step was skipped, and is where the infinities are.
        assert shares == [(0.25, 0.0), (0.25, 0.25)]
        assert rows[1][records.SKIPPED_TOTAL] == 1
    else:
        assert shares == [(None, None)] * 2


def test_another_optimizer_gets_a_row_for_each_mark(tmp_path):
    rows, result = fit(tmp_path, keras.optimizers.SGD(0.0))
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == [3, 6, 8, 11, 14, 16]
    epoch = next(row for row in rows if row["kind"] == "epoch")
    mean = np.average([row[records.TRAIN_LOSS] for row in steps[:3]], weights=[3, 3, 2])
    np.testing.assert_allclose(mean, epoch[records.TRAIN_LOSS], rtol=1e-5)
    assert all(records.GRADIENT_NORM not in row and records.SCALE not in row for row in steps)
    assert result["loss_scale"] is None and result["steps_applied"] is None


def test_a_small_history_is_read_before_it_overflows(tmp_path):
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1), history=2)
    rows, _ = fit(tmp_path, optimizer, log_every=50)
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 17))


def test_float16_without_scaling_is_warned_of_by_name(tmp_path):
    half = keras.layers.Dense(1, dtype="mixed_float16", name="half")
    model = keras.Sequential([keras.Input((4,)), half])
    with pytest.warns(UserWarning, match="half.*LossScaleOptimizer"):
        fit(tmp_path, keras.optimizers.SGD(0.1), model=model, epochs=1)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_no_warning_where_nothing_needs_scaling(tmp_path, policy):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(tmp_path, keras.optimizers.SGD(0.1), policy=policy, epochs=1)


def test_a_completed_run_is_replaced_where_it_may_be_and_its_files_kept(tmp_path, capsys):
    fit(tmp_path, keras.optimizers.SGD(0.1), epochs=1)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    telemetry = tfamp.PrecisionTelemetry(tmp_path / "run", overwrite=False)
    with pytest.raises(ValueError, match=naming("finished", "overwrite=True")):
        model.fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[telemetry])
    telemetry = tfamp.PrecisionTelemetry(tmp_path / "run")
    # Keras's callback writes into the same folders; what it is writing stays where it is.
    board = keras.callbacks.TensorBoard(tmp_path / "run")
    capsys.readouterr()
    model.fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[board, telemetry])
    (aside,) = (tmp_path / "run").glob("replaced-*")
    said = capsys.readouterr().out
    assert says(said, tmp_path / "run", f"{aside}.") and len(said.splitlines()) == 1
    assert (aside / "metrics.jsonl").read_text() == before
    assert (aside / "result.json").exists() and list((aside / "train").glob("*.replaced.*"))
    names = {path.suffix for path in (tmp_path / "run" / "train").iterdir()}
    assert names == {".tfamp", ".v2"}


def test_a_folder_of_somebody_elses_is_refused_and_untouched(tmp_path):
    files = ("train/cats/1.jpg", "validation/dogs/2.jpg", "checkpoints/best.keras", "config.json")
    for name in files:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    message = "checkpoints/, config.json, train/cats/, validation/dogs/.*Set another run_dir"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, keras.optimizers.SGD(0.1), epochs=1)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == len(files) and all(path.read_text() == "mine" for path in left)


@pytest.mark.parametrize("kind", ["tfamp", "adam", "schedule"])
def test_under_two_replicas(tmp_path, two_replicas, kind):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.25, 10, 0.5)
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        optimizer = {
            "tfamp": lambda: tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.25)),
            "adam": lambda: "adam",
            "schedule": lambda: keras.optimizers.SGD(schedule),
        }[kind]()
        model.compile(optimizer, loss="mse", jit_compile=False)
    model.fit(INPUTS, TARGETS, batch_size=16, verbose=0, shuffle=False,
              callbacks=[tfamp.PrecisionTelemetry(tmp_path / "run", log_every=2)])  # fmt: skip
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    rates = [row[records.LEARNING_RATE] for row in rows if row["kind"] == "step"]
    assert rates[0] == pytest.approx(0.001 if kind == "adam" else 0.25, rel=0.2)
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    expected = {"tfamp": 0.25, "adam": 0.001, "schedule": None}[kind]
    assert config["learning_rate"] == expected
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"


def test_broken_moving_averages_are_told_although_the_callback_tells_the_rest(tmp_path, capfd):
    inputs = INPUTS.copy()
    inputs[20] = math.nan
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(tfamp.LossScaleOptimizer("sgd"), loss="mse")
    model.fit(inputs, TARGETS, batch_size=8, verbose=0, shuffle=False,
              callbacks=[tfamp.PrecisionTelemetry(tmp_path / "run")])  # fmt: skip
    said = capfd.readouterr().err
    assert said.count("The moving averages of ") == 1
    assert says(said, "moving averages", model.get_layer("norm").path)
    # The weights are as they were: nothing to do with the learning rate.
    assert says(said, "Step 3", "loss is NaN", "skipped", "Look for NaN")
    assert "learning rate" not in said and "steps so far were skipped" not in said
