"""A run that is captured, and put back into a freshly built one, goes on to the bit."""

import random
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfamp.data import registry as data_registry
from tfamp.precision.moving_averages import keeping_averages, kept_moving_averages
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.resolve import resolve
from tfamp.telemetry.callback import PrecisionTelemetry
from tfamp.training import optim
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop
from tfamp.training.state import CapturedState, TrainingState
from tfamp.training.step import Step

BEFORE, AFTER, BATCH = 5, 6, 8


class Noisy(keras.layers.Layer):
    """Draws from Keras's global generator."""

    def call(self, inputs):
        noise = keras.random.normal(keras.ops.shape(inputs), dtype=self.compute_dtype)
        return inputs + 0.1 * noise


def data(start_step=0):
    return data_registry.load(
        "synthetic",
        batch_size=BATCH,
        seed=0,
        image_size=8,
        num_examples=32,
        num_classes=3,
        augment="flip_crop",
        start_step=start_step,
    ).train


def built(policy, seed, width=4):
    """A model with all that moves; its weights differ by seed."""
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    # Five steps end in the middle of a group of two.
    config = resolve(
        Config(policy=policy, accumulation_steps=2, ema_momentum=0.9, warmup_steps=3,
               # Overflows first, and then grows.
               initial_loss_scale=2.0**32, max_loss_scale=2.0**32, loss_scale_growth_steps=2,
               loss_scale_backoff_factor=2.0**-16)
    )  # fmt: skip
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(width, use_bias=False),
            keras.layers.BatchNormalization(),
            Noisy(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )
    model.compile(
        optim.build(config, total_updates=9, scaled=policy == "mixed_float16", history=64),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model, TrainingState(model, data().element_spec)


def step_of(model, loop):
    """A step as a loop takes it."""
    step = keeping_averages(model.train_step if loop == "fit" else Step(model), model)
    return tf.function(tf.autograph.experimental.do_not_convert(step))


def reported(step, start_step, count):
    """What each of some steps reports, in the middle of an epoch."""
    logs = [step(batch) for batch in data(start_step).take(count)]
    return [{name: float(value) for name, value in each.items()} for each in logs]


def draws():
    """A number of each random generator of the process but Keras's."""
    from_tensorflow = tf.random.get_global_generator().normal([])
    return random.random(), random.gauss(0, 1), np.random.normal(), float(from_tensorflow)


def everything(model):
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return [np.array(variable.value) for variable in variables]


@pytest.mark.parametrize(
    ("loop", "policy"),
    [
        ("custom", "mixed_float16"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("fit", "mixed_float16"), ("fit", "float32"), ("custom", "bfloat16")]
        ),
    ],
)
def test_a_restored_run_goes_on_to_the_bit(tmp_path, loop, policy):
    model, state = built(policy, seed=0)
    step = step_of(model, loop)
    reported(step, 0, BEFORE)
    draws()
    captured = state.capture()
    captured.write(tmp_path / "state.npz")
    drawn = draws()
    expected = reported(step, BEFORE, AFTER)
    updates = model.optimizer.steps_attempted
    assert updates == (BEFORE + AFTER) // 2
    if policy == "mixed_float16":
        assert 0 < model.optimizer.skipped_total < updates

    other, resumed = built(policy, seed=1)
    assert not np.array_equal(other.trainable_variables[0], model.trainable_variables[0])
    resumed.restore(CapturedState.read(tmp_path / "state.npz"))
    assert draws() == drawn
    assert reported(step_of(other, loop), BEFORE, AFTER) == expected
    for ours, theirs in zip(everything(other), everything(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


TIMES = {records.STEP_TIME, records.EPOCH_TIME, records.DEVICE_PEAK, records.DEVICE_CURRENT,
         records.HOST_PEAK}  # fmt: skip


def epoch(model, telemetry, loop, number):
    """An epoch of four steps with telemetry; its rows but for times."""
    file = telemetry.directory.metrics
    before = len(records.read_rows(file)) if number else 0
    listed = DeviceCallbackList(
        [telemetry], add_history=True, model=model, epochs=number + 1, steps=4
    )
    if loop == "fit":
        with kept_moving_averages(model):
            model.fit(data(4 * number), initial_epoch=number, epochs=number + 1, steps_per_epoch=4,
                      shuffle=False, callbacks=listed, verbose=0)  # fmt: skip
    else:
        CustomLoop(model).run(data(4 * number), None, 1, 4, listed)
    rows = records.read_rows(file)[before:]
    return [{name: v for name, v in row.items() if name not in TIMES} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fit", "custom"])
def test_rows_and_figures_go_on_too(tmp_path, loop):
    def begin(name, seed):
        model, _ = built("mixed_float16", seed)
        directory = RunDirectory(tmp_path / name)
        directory.prepare()
        telemetry = PrecisionTelemetry(directory.path, log_every=3, owns_result=False)
        return model, telemetry, TrainingState(model, data().element_spec, telemetry)

    model, telemetry, state = begin("unbroken", seed=0)
    epoch(model, telemetry, loop, 0)
    captured = state.capture()
    assert captured.step == 4
    captured.write(tmp_path / "state.npz")
    shutil.copy(telemetry.directory.metrics, tmp_path)
    expected = epoch(model, telemetry, loop, 1)
    assert [(row["kind"], row["step"], row["epoch"]) for row in expected] == [
        *(("step", step, 1) for step in range(5, 9)),
        ("epoch", 8, 1),
    ]

    model, resumed, state = begin("resumed", seed=1)
    shutil.copy(tmp_path / "metrics.jsonl", resumed.directory.path)
    state.restore(CapturedState.read(tmp_path / "state.npz"))
    assert epoch(model, resumed, loop, 1) == expected
    ours, theirs = resumed.result(), telemetry.result()
    assert ours.steps_attempted == 4
    for name in ("epochs", "steps_attempted", "steps_applied", "loss_scale", "train_loss"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_what_is_captured_no_later_step_changes():
    model, state = built("mixed_float16", seed=0)
    captured = state.capture()
    before = {name: array.copy() for name, array in captured.arrays.items()}
    for batch in data().take(2):
        Step(model)(batch)
    for name, array in captured.arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    state.restore(captured)
    for name, array in state.capture().arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_the_state_of_another_model_is_refused_and_changes_nothing():
    _, state = built("float32", seed=0)
    captured = built("float32", seed=1, width=5)[1].capture()
    before = state.capture()
    with pytest.raises(ValueError, match=r"shape \(192, 5\) where .* has \(192, 4\)"):
        state.restore(captured)
    for name, array in state.capture().arrays.items():
        np.testing.assert_array_equal(array, before.arrays[name], err_msg=name)
    bare = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    bare.compile(keras.optimizers.SGD(), loss="mse")
    with pytest.raises(ValueError, match="variables of the model"):
        state.restore(TrainingState(bare).capture())
