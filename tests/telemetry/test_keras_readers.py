"""What is told of optimizers that keep no history: Keras's own scaler, and plain ones."""

import keras
import numpy as np
import pytest
from plain_scripts import TARGETS, Left, compiled, fit

import tfamp
from tfamp.run import records
from tfamp.telemetry.keras_readers import KerasScaleReader, _skips
from tfamp.telemetry.totals import OptimizerTotals


def test_the_wrapper_that_compile_makes_is_read_at_marks(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled("adam")
    targets = TARGETS.copy()
    targets[[8, 16, 40]] = np.inf  # batches 2, 3 and 6
    fit(model, tfamp.PrecisionTelemetry(tmp_path, log_every=4), targets=targets)
    left = Left(tmp_path)
    assert left.column("step") == [4, 8]
    assert left.column(records.SCALE) == [2.0**13, 2.0**12]
    assert left.column(records.SKIPPED_TOTAL) == [2, 3]
    assert left.column(records.GROWTH_COUNTER) == [1, 2]
    assert left.column(records.LEARNING_RATE) == [pytest.approx(1e-3)] * 2
    assert records.GRADIENT_NORM not in left.steps[0]
    assert left.result["loss_scale"] == {
        "mode": "dynamic", "initial": 2.0**15, "final": 2.0**12, "min": 2.0**12, "max": 2.0**15,
        "skipped": 3, "skipped_non_finite_loss": None, "collapsed_at": None, "first_skips": None,
    }  # fmt: skip
    assert (left.result["steps_attempted"], left.result["steps_applied"]) == (8, 5)
    assert left.config["config"]["loss_scale"] == "dynamic"
    assert left.config["config"]["initial_loss_scale"] == 2.0**15


CASES = [
    # steps, updates, scale before and after, growths at most: skips
    ((10, 10, 8.0, 8.0, 0), 0),
    ((10, 8, 8.0, 2.0, 0), 2),
    # One update in two steps, as a GAN's generator: the halvings know it, the steps do not.
    ((10, 5, 8.0, 8.0, 0), 0),
    ((10, 10, 8.0, 16.0, 1), 0),
    ((10, 9, 8.0, 8.0, 1), 1),
    ((10, 5, 8.0, 8.0, 1), None),
    ((10, 0, 8.0, 0.0, 0), None),
    ((10, 10, np.inf, np.inf, 0), None),
]


@pytest.mark.parametrize(("window", "skips"), CASES)
def test_skips_between_two_reads(window, skips):
    assert _skips(*window) == skips


def test_random_trajectories_of_keras_are_counted_exactly():
    """Growths and skips in any order: what is told agrees with what happened, or is not told."""
    generator = np.random.default_rng(0)
    variable = keras.Variable(np.zeros(2, "float32"))
    inner = keras.optimizers.SGD(0.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=5)
    optimizer.build([variable])
    reader = KerasScaleReader(optimizer, OptimizerTotals())
    skipped = told = 0
    for step in range(1, 121):
        bad = generator.random() < 0.15
        skipped += bad
        optimizer.apply([keras.ops.full((2,), np.inf if bad else 1.0)], [variable])
        if step % 4 == 0:
            for _, row in reader.read(step - 4, step):
                told += 1
                assert row.get(records.SKIPPED_TOTAL, skipped) == skipped
                assert row[records.SCALE] == float(optimizer.dynamic_scale)
    assert told == 30 and skipped > 10
    assert reader.totals().count("skipped_total") == skipped


def test_a_wrapper_that_nothing_uses_says_nothing():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    optimizer.build([keras.Variable(np.zeros(2, "float32"))])
    reader = KerasScaleReader(optimizer, OptimizerTotals())
    assert list(reader.read(0, 10)) == []
    assert reader.totals().loss_scale() is None
