"""The scale's trajectory is that of torch's GradScaler, at every one of 1,000 steps."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp

REFERENCE = np.load(Path(__file__).parent / "data" / "torch_grad_scaler.npz")
SETTINGS, PATTERNS = REFERENCE["settings"], REFERENCE["pattern"]
IS_FINITE, SCALES = REFERENCE["is_finite"], REFERENCE["scales"]


def scales_of(settings, patterns):
    """Drives one optimizer through several patterns; its scale before each step and at the end."""
    initial, growth, backoff, interval = settings.tolist()
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.0),
        initial,
        int(interval),
        growth_factor=growth,
        backoff_factor=backoff,
        min_scale=2.0**-126,
        max_scale=2.0**126,
        recovery_steps=None,
        history=patterns.shape[1],
    )
    weight = keras.Variable([1.0])
    optimizer.build([weight])
    start = [variable.numpy() for variable in optimizer.variables]

    @tf.function
    def drive(is_finite):
        for finite in is_finite:
            optimizer.apply([tf.where(finite, [1.0], [np.inf])], [weight])

    for is_finite in patterns:
        for variable, value in zip(optimizer.variables, start, strict=True):
            variable.assign(value)
        drive(tf.constant(is_finite))
        _, rows = optimizer.history()
        assert optimizer.skipped_total == np.sum(~is_finite)
        yield np.append(rows["scale"], np.float32(optimizer.scale))


@pytest.mark.parametrize("settings", np.unique(SETTINGS, axis=0), ids=str)
def test_it_is_torchs_at_every_step(settings):
    chosen = np.flatnonzero((settings == SETTINGS).all(axis=1))
    for i, scales in zip(chosen, scales_of(settings, IS_FINITE[chosen]), strict=True):
        np.testing.assert_array_equal(scales, SCALES[i], err_msg=str(PATTERNS[i]))


def test_the_reference_covers_what_it_should():
    assert SCALES.shape == (len(PATTERNS), 1001) and len(PATTERNS) >= 30
    assert {"all_finite", "long_overflow", "overflow_at_each_growth"} < set(PATTERNS.tolist())
    runs = ["".join("01"[int(finite)] for finite in pattern).split("1") for pattern in IS_FINITE]
    assert max(len(run) for of_pattern in runs for run in of_pattern) >= 60
    # Scales that are no powers of two: torch multiplies in float64 and rounds to float32.
    assert any(np.any(np.frexp(row)[0] != 0.5) for row in SCALES)
