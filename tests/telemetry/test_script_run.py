"""What config.json and result.json say of a run in a user's script, however it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from plain_scripts import INPUTS, TARGETS, Left, compiled, fit, scaled, tiny_model

import tfamp
from tests.marks import slow
from tfamp import report
from tfamp.run import records
from tfamp.telemetry import script_config
from tfamp.telemetry.named_optimizers import named_optimizers

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys, keras, numpy as np, tfamp
class Ends(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 4:
            {end}
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1)), loss="mse")
values = np.ones((64, 2), "float32"), np.ones((64, 1), "float32")
telemetry = tfamp.PrecisionTelemetry("run", log_every=100)
try:
    model.fit(*values, batch_size=8, epochs=2, verbose=0, callbacks=[telemetry, Ends()])
except ZeroDivisionError:
    pass
"""
ENDS = [
    ("raise RuntimeError('out of luck')", 1, "failed", "RuntimeError: out of luck"),
    slow("raise KeyboardInterrupt", 130, "interrupted", None),
    slow("raise ZeroDivisionError", 0, "interrupted", None),
    slow("sys.exit(3)", 3, "interrupted", None),
]


@pytest.mark.parametrize(("end", "code", "status", "error"), ENDS)
def test_a_process_that_ends_in_fit_says_so(tmp_path, end, code, status, error):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (code, -2 if code == 130 else code), done.stderr
    left = Left(tmp_path / "run")
    assert (left.result["status"], left.result["error"]) == (status, error)
    # The rows that were still on the device are there.
    assert left.column("step") == [1, 2, 3, 4, 5]
    assert left.result["steps_attempted"] == 5


def test_as_a_context_it_is_written_at_once_and_may_go_on(tmp_path):
    class Ends(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise RuntimeError("out of luck")

    model = compiled(scaled())
    telemetry = tfamp.PrecisionTelemetry(tmp_path)
    with pytest.raises(RuntimeError), telemetry:
        # It comes before the telemetry has counted the step, which was taken all the same.
        fit(model, telemetry, callbacks=[Ends(), telemetry])
    left = Left(tmp_path)
    assert left.result["status"] == "failed"
    assert left.column("step") == [1, 2, 3, 4, 5]
    fit(model, telemetry)
    left = Left(tmp_path)
    assert left.result["status"] == "completed"
    assert left.column("step") == list(range(1, 14))
    assert [row["epoch"] for row in left.epochs] == [1]


def test_a_run_that_is_restored_goes_on_in_its_folder(tmp_path):
    first = tfamp.PrecisionTelemetry(tmp_path)
    fit(compiled(scaled()), first)
    config = Left(tmp_path).config
    # As another process would, with a model of its own; it replaces nothing.
    second = tfamp.PrecisionTelemetry(tmp_path, overwrite=False)
    second.restore(first.state())
    fit(compiled(scaled()), second, epochs=2, initial_epoch=1)
    left = Left(tmp_path)
    assert left.config == config and not list(tmp_path.glob("replaced-*"))
    assert left.column("step") == list(range(1, 17))
    assert [row["kind"] for row in left.rows if row["kind"] != "step"] == [
        "epoch", "event", "epoch", "event",
    ]  # fmt: skip
    assert (left.result["status"], left.result["epochs"]) == ("completed", 2)
    assert (left.result["steps_attempted"], left.result["policy"]) == (16, "float32")


def test_a_run_is_not_restored_while_it_trains(tmp_path):
    class Restores(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            telemetry.restore(telemetry.state())

    telemetry = tfamp.PrecisionTelemetry(tmp_path)
    with pytest.raises(RuntimeError, match=r"while it trains: .* Call restore\(\) before fit"):
        fit(compiled(scaled()), telemetry, callbacks=[telemetry, Restores()])


def test_a_collapse_is_written_by_the_callback_itself(tmp_path):
    targets = np.full_like(TARGETS, np.inf)
    model = compiled(scaled(max_skipped_in_a_row=2))
    with pytest.raises(tfamp.LossScaleCollapse):
        fit(model, tfamp.PrecisionTelemetry(tmp_path, log_every=2), targets=targets)
    left = Left(tmp_path)
    assert left.result["status"] == "failed"
    assert left.result["error"].startswith("LossScaleCollapse: ")


def test_config_json_says_what_ran(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(7)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    model = compiled(keras.optimizers.SGD(schedule), jit_compile=True)
    fit(model, tfamp.PrecisionTelemetry(tmp_path, batch_size=8), epochs=2)
    record = Left(tmp_path).config
    expected = {
        "policy": "mixed_bfloat16", "model": "sequential", "dataset": None, "seed": 7,
        "loop": "fit", "epochs": 2, "steps_per_epoch": 8, "batch_size": 8, "optimizer": "sgd",
        "learning_rate": None, "loss_scale": "none", "jit_compile": True, "accumulation_steps": 1,
    }  # fmt: skip
    assert {name: record["config"][name] for name in expected} == expected
    assert record["trainable_parameters"] == 25
    assert record["versions"]["keras"] == keras.__version__
    assert record["device"].startswith(("CPU:0 (", "GPU:0 ("))
    result = Left(tmp_path).result
    assert (result["seed"], result["model"], result["jit_compile"]) == (7, "sequential", True)


def test_the_policy_of_a_loaded_model_is_that_of_its_layers(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    compiled(scaled()).save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    model = keras.models.load_model(tmp_path / "model.keras")
    layers = [keras.layers.Dense(4, dtype="mixed_float16") for _ in range(2)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    assert script_config.config(model, {})["policy"] == "mixed_float16"
    assert script_config.config(tiny_model(), {})["policy"] == "float32"


def test_optimizers_are_found_and_named():
    first, second, third = scaled(), keras.optimizers.SGD(0.1), keras.optimizers.Adam(name="adam")

    class Pair(keras.Model):
        pass

    model = Pair()
    assert named_optimizers(model, None) == {}
    model.compile(first)
    assert named_optimizers(model, None) == {"": first}
    model.left, model.right = first, second
    assert named_optimizers(model, None) == {"left": first, "right": second}
    model.optimizer = third
    assert list(named_optimizers(model, None)) == ["optimizer", "left", "right"]
    assert named_optimizers(model, [second, third]) == {"right": second, "adam": third}
    assert named_optimizers(model, [second]) == {"": second}
    assert named_optimizers(None, [third, keras.optimizers.Adam(name="adam")]).keys() == {
        "adam", "adam_2"
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"optimizers\['x'\] is 1: it must be a Keras optimizer"):
        named_optimizers(model, {"x": 1})


def test_two_runs_make_a_comparison(tmp_path):
    bad = TARGETS.copy()
    bad[[8, 24]] = np.inf
    for policy, targets in (("float32", TARGETS), ("mixed_float16", bad)):
        keras.config.set_dtype_policy(policy)
        model, telemetry = compiled("adam"), tfamp.PrecisionTelemetry(tmp_path / policy)
        fit(model, telemetry, targets=targets)
        fit(model, telemetry, validation_data=(INPUTS, TARGETS))
    assert report.main([str(tmp_path)]) == 0
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    (group,) = document["groups"]
    mixed = next(v for v in group["variants"] if not v["is_baseline"])
    # All skips, although they were read at marks only.
    assert mixed["skipped_steps"]["total"] == 2 and mixed["skipped_steps"]["of"] == 16
    assert mixed["comparison"]["accuracy_difference"] is not None


def test_what_the_step_rows_of_several_metrics_are(tmp_path):
    metrics = [
        "mae",
        keras.metrics.RootMeanSquaredError(name="root"),
        keras.metrics.AUC(name="auc"),
    ]
    model = compiled(scaled(0.0), metrics=metrics)
    fit(model, tfamp.PrecisionTelemetry(tmp_path, log_every=4))
    left = Left(tmp_path)
    first, second = left.steps[3], left.steps[7]
    epoch = left.epochs[0]
    # Means are of the window, what is no mean as it is since the epoch began.
    assert (first["train/mae"] + second["train/mae"]) / 2 == pytest.approx(epoch["train/mae"])
    assert second["train/root"] == epoch["train/root"] != first["train/root"]
    assert second["train/auc"] == pytest.approx(epoch["train/auc"], abs=1e-6)
    assert records.TRAIN_ACCURACY not in epoch and left.result["validation_accuracy"] is None
