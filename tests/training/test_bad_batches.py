"""Lost steps in both of the trainer's loops: the weights, the scale and the averages survive."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop

NAN = float("nan")
GENERATOR = np.random.default_rng(0)
CLASSES = GENERATOR.integers(0, 3, 320)
CENTRES = np.eye(3, 4, dtype="float32") * 2
INPUTS = (CENTRES[CLASSES] + GENERATOR.normal(size=(320, 4))).astype("float32")
LABELS = np.eye(3, dtype="float32")[CLASSES]


def trained(loop, bad_steps, steps, kind, **values):
    """Trains on batches of 16; `bad_steps` of them hold a NaN, or overflow in the gradient."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )
    optimizer = tfamp.LossScaleOptimizer(
        keras.optimizers.SGD(0.05), **({"history": steps} | values)
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, jit_compile=False, steps_per_execution=20)
    inputs = np.stack([INPUTS[16 * (i % 20) :][:16] for i in range(steps)])
    labels = np.stack([LABELS[16 * (i % 20) :][:16] for i in range(steps)])
    for step in bad_steps:
        if kind == "nan":
            inputs[step, 5] = NAN
        else:
            labels[step, 5] *= 1e30
    data = tf.data.Dataset.from_tensor_slices((inputs, labels))
    if loop == "fit":
        with tfamp.kept_moving_averages(model):
            model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False)
    else:
        listed = DeviceCallbackList([], model=model, epochs=1, steps=steps, verbose=0)
        CustomLoop(model).run(data, None, 1, steps, listed)
    logits = model.predict(INPUTS, verbose=0)
    assert np.isfinite(logits).all() and np.mean(logits.argmax(1) == CLASSES) > 0.8
    assert optimizer.steps_applied == steps - len(bad_steps)
    return optimizer


@pytest.mark.parametrize("loop", ["fit", "custom"])
def test_forty_nan_batches_leave_nothing_behind(loop):
    optimizer = trained(loop, range(40), 200, "nan")
    assert (optimizer.scale, optimizer.skipped_non_finite_loss) == (2.0**15, 40)
    assert optimizer.collapsed_at is None


@pytest.mark.parametrize("loop", ["fit", "custom"])
def test_one_corrupt_example_an_epoch_does_not_sink_the_scale(loop):
    optimizer = trained(
        loop, range(7, 600, 20), 600, "nan", initial_scale=256.0, dynamic_growth_steps=200
    )
    assert optimizer.skipped_total == optimizer.skipped_non_finite_loss == 30
    # 570 clean steps, two growths: as if the bad ones had not been.
    assert optimizer.scale == 1024.0


@pytest.mark.parametrize("loop", ["fit", "custom"])
def test_the_scale_is_back_after_forty_overflows(loop):
    optimizer = trained(loop, range(10, 50), 700, "overflow")
    assert (optimizer.skipped_total, optimizer.skipped_non_finite_loss) == (40, 0)
    assert optimizer.scale == 2.0**15
    assert optimizer.collapsed_at == 40
