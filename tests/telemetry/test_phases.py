"""Several fits are one run: with one callback, or for one model and folder."""

import warnings

import keras
import pytest
from plain_scripts import INPUTS, TARGETS, Left, compiled, fit, scaled

import tfamp
from tfamp.run import records


def test_freeze_fit_recompile_fit_is_one_run(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    telemetry = tfamp.PrecisionTelemetry(tmp_path, log_every=3, batch_size=8)
    model = compiled(scaled(initial_scale=2.0**30, max_scale=2.0**40))
    model.layers[0].trainable = False
    model.compile(model.optimizer, model.loss, metrics=["accuracy"])
    targets = TARGETS.copy()
    targets[[0, 16]] = float("inf")
    fit(model, telemetry, targets=targets, epochs=2, validation_data=(INPUTS, TARGETS))
    first = Left(tmp_path)
    assert first.result["status"] == "completed" and first.result["epochs"] == 2
    assert first.result["loss_scale"]["first_skips"] == [1, 3, 9, 11]
    skipped = 4

    model.layers[0].trainable = True
    model.compile(scaled(initial_scale=2.0**10), model.loss, metrics=["accuracy"])
    fit(model, telemetry, epochs=3, initial_epoch=2)
    fit(model, telemetry, epochs=1)
    left = Left(tmp_path)
    assert left.column("step") == list(range(1, 33))
    assert [row["epoch"] for row in left.steps] == [epoch for epoch in range(4) for _ in range(8)]
    assert [(row["epoch"], row["step"]) for row in left.epochs] == [
        (0, 8),
        (1, 16),
        (2, 24),
        (3, 32),
    ]
    # Counts are the run's: they go on where a new optimizer begins at nothing.
    assert left.column(records.SKIPPED_TOTAL)[16:] == [skipped] * 16
    result = left.result
    assert (result["epochs"], len(result["epoch_time_sec"])) == (4, 4)
    assert (result["steps_attempted"], result["steps_applied"]) == (32, 32 - skipped)
    scale = result["loss_scale"]
    assert (scale["initial"], scale["final"], scale["skipped"]) == (2.0**30, 2.0**10, skipped)
    assert (scale["min"], scale["max"]) == (2.0**10, 2.0**30)
    assert scale["first_skips"] == first.result["loss_scale"]["first_skips"]
    # The last epoch that was validated is the second.
    assert result["validation_accuracy"] == left.epochs[1][records.VALIDATION_ACCURACY]
    phases = [row for row in left.rows if row.get("event") == "phase"]
    assert [row["step"] for row in phases] == [16, 24]
    assert [row["trainable_parameters"] for row in phases] == [25, 25]
    # Each phase compiles anew, and no window holds that.
    assert result["step_time_ms"]["n"] == 32 - 3


def test_another_callback_goes_on_with_the_same_model_only(tmp_path):
    model = compiled(scaled())
    fit(model, tfamp.PrecisionTelemetry(tmp_path))
    fit(model, tfamp.PrecisionTelemetry(tmp_path))
    assert Left(tmp_path).column("step") == list(range(1, 17))
    # Without telemetry in between the optimizer's own counts move on; the run's do not.
    model.fit(INPUTS, TARGETS, batch_size=8, verbose=0)
    fit(model, tfamp.PrecisionTelemetry(tmp_path))
    left = Left(tmp_path)
    assert left.column("step") == list(range(1, 25))
    assert left.result["steps_attempted"] == 24 and model.optimizer.steps_attempted == 32
    with pytest.raises(ValueError, match="finished run"):
        fit(compiled(scaled()), tfamp.PrecisionTelemetry(tmp_path, overwrite=False))


@pytest.mark.slow
def test_an_optimizer_that_has_worked_before_begins_at_nothing(tmp_path):
    model = compiled(scaled())
    targets = TARGETS.copy()
    targets[0] = float("inf")
    model.fit(INPUTS, targets, batch_size=8, verbose=0, shuffle=False)
    assert model.optimizer.skipped_total == 1
    fit(model, tfamp.PrecisionTelemetry(tmp_path))
    left = Left(tmp_path)
    assert left.column(records.SKIPPED_TOTAL) == [0] * 8
    assert left.result["loss_scale"]["skipped"] == 0
    assert (left.result["steps_attempted"], left.result["steps_applied"]) == (8, 8)


def test_a_fit_may_begin_at_a_later_epoch(tmp_path):
    fit(compiled(scaled()), tfamp.PrecisionTelemetry(tmp_path), initial_epoch=5, epochs=7)
    left = Left(tmp_path)
    assert [row["epoch"] for row in left.epochs] == [5, 6]
    assert left.column("step") == list(range(1, 17))


def test_evaluate_alone_and_validation_now_and_then(tmp_path):
    telemetry = tfamp.PrecisionTelemetry(tmp_path)
    model = compiled(scaled())
    model.evaluate(INPUTS, TARGETS, verbose=0, callbacks=[telemetry])
    assert list(tmp_path.iterdir()) == []
    batches = ((INPUTS[i : i + 8], TARGETS[i : i + 8]) for i in range(0, 40, 8))
    with warnings.catch_warnings():
        # Keras says so of a generator that ends.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        model.fit(batches, verbose=2, shuffle=False, callbacks=[telemetry])
    validation = {"validation_data": (INPUTS, TARGETS), "validation_freq": 2}
    fit(model, telemetry, epochs=3, class_weight={0: 1.0, 1: 2.0}, **validation)
    fit(model, telemetry, sample_weight=TARGETS[:, 0] + 1)
    model.evaluate(INPUTS, TARGETS, verbose=0, callbacks=[telemetry])
    left = Left(tmp_path)
    assert left.column("step") == list(range(1, 38))
    validated = [row["epoch"] for row in left.epochs if records.VALIDATION_LOSS in row]
    assert len(left.epochs) == 5 and validated == [2]
    assert left.result["status"] == "completed"


def test_early_stopping_ends_a_run_as_any(tmp_path):
    stop = keras.callbacks.EarlyStopping("loss", patience=0)
    telemetry = tfamp.PrecisionTelemetry(tmp_path)
    fit(compiled(scaled(0.0)), telemetry, epochs=5, callbacks=[telemetry, stop])
    left = Left(tmp_path)
    assert (left.result["status"], left.result["epochs"]) == ("completed", 2)


def test_steps_per_execution_auto_is_refused(tmp_path):
    model = compiled(scaled(), steps_per_execution="auto")
    with pytest.raises(ValueError, match="steps_per_execution='auto': Keras 3 takes a whole"):
        fit(model, tfamp.PrecisionTelemetry(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_steps_a_call(tmp_path, jit_compile):
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled(scaled(), steps_per_execution=3, jit_compile=jit_compile)
    telemetry = tfamp.PrecisionTelemetry(tmp_path, log_every=2)
    fit(model, telemetry, epochs=2, validation_data=(INPUTS, TARGETS))
    left = Left(tmp_path)
    # The third call of an epoch has data for two.
    assert left.column("step") == list(range(1, 17))
    assert [row["step"] for row in left.epochs] == [8, 16]
    assert left.result["steps_attempted"] == 16
