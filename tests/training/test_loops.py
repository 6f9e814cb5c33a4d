"""Both loops take the same steps: equal rows, whatever the policy."""

import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from tests.marks import slow
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.training import trainer

TINY = f"{Path(__file__).parents[1]}/e2e/tiny_model.py:tiny"

# The two loops run the same kernels on the same numbers, but XLA and grappler may order a sum
# differently in two differently shaped graphs. Relative to each row's value, over 20 steps:
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 3e-2, "mixed_float16": 1e-2}


def rows_of(tmp_path, **values):
    """Trains and returns the step rows and the figures of the result."""
    config = resolve(
        Config(**{"model": TINY, "dataset": "fashion_mnist_mini", "batch_size": 50,
                  "steps_per_epoch": 10, "epochs": 2, "logdir": str(tmp_path),
                  "save_model": False} | values)
    )  # fmt: skip
    result = trainer.train(config, say=lambda line: None).result
    rows = records.read_rows(tmp_path / config.run_name / "metrics.jsonl")
    return [row for row in rows if row["kind"] == "step"], result.figures


# 2^24 overflows at first, growth every 4 steps makes it overflow again: skips and growths.
GROWS = {"initial_loss_scale": 2.0**24, "loss_scale_growth_steps": 4}
CASES = [
    ("float32", TINY, {}),
    ("mixed_bfloat16", TINY, {"accumulation_steps": 2}),
    ("mixed_float16", TINY, GROWS | {"jit_compile": False}),
]
LONG_CASES = [
    ("mixed_float16", TINY, GROWS),
    ("mixed_float16", TINY, {"accumulation_steps": 2, "jit_compile": False}),
    ("mixed_float16", TINY, {"loss_scale": "64", "steps_per_execution": 5}),
    ("mixed_bfloat16", TINY, {"augment": "flip_crop", "ema_momentum": 0.9, "optimizer": "adamw"}),
    ("mixed_bfloat16", "resnet20", {"image_size": 8, "batch_size": 8}),
]


@pytest.mark.parametrize(
    ("policy", "model", "values"),
    [*CASES, *(slow(*case) for case in LONG_CASES)],
)
def test_equal_rows_for_20_steps(tmp_path, policy, model, values):
    values = {"policy": policy, "model": model} | values
    fit, fit_result = rows_of(tmp_path, loop="fit", **values)
    custom, custom_result = rows_of(tmp_path, loop="custom", **values)
    assert [row["step"] for row in fit] == list(range(1, 21))
    exact = (records.SCALE, records.SKIPPED_TOTAL, records.GROWTH_COUNTER, records.LEARNING_RATE)
    for ours, theirs in zip(fit, custom, strict=True):
        measured_once = {records.STEP_TIME, records.THROUGHPUT}
        assert set(ours) - measured_once == set(theirs) - measured_once
        for name in exact:
            assert ours.get(name) == theirs.get(name)
        counted = {records.GRADIENT_ZEROS, records.GRADIENT_NON_FINITE} & set(ours)
        is_counted = policy == "mixed_float16" and records.GRADIENT_NORM in ours
        assert len(counted) == (2 if is_counted else 0)
        for name in (records.TRAIN_LOSS, records.GRADIENT_NORM, records.TRAIN_ACCURACY):
            if name in ours:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=TOLERANCE[policy])
    assert abs(fit_result.validation_loss - custom_result.validation_loss) < 0.1
    if "initial_loss_scale" in values:
        assert fit_result.loss_scale.skipped > 0
        assert max(row[records.GROWTH_COUNTER] for row in fit) == 3


@pytest.mark.parametrize("loop", ["fit", "custom"])
def test_the_host_reads_nothing_between_two_marks(tmp_path, monkeypatch, loop):
    """Counts every tensor that reaches the host, by the step of the epoch that is running."""
    running = {"step": None}
    reads = set()
    base = ops._EagerTensorBase
    read = base._numpy

    def counted(tensor):
        # Keras asks an Optional, which lives on the host, whether the data has ended: a bool. And
        # another thread looks at the optimizers of earlier tests.
        is_main = threading.current_thread() is threading.main_thread()
        if running["step"] is not None and tensor.dtype != tf.bool and is_main:
            reads.add(running["step"])
        return read(tensor)

    class Steps(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            running["step"] = batch + 1

        def on_test_begin(self, logs=None):
            running["step"] = None

    original = trainer.DeviceCallbackList
    monkeypatch.setattr(base, "_numpy", counted)
    monkeypatch.setattr(
        trainer,
        "DeviceCallbackList",
        lambda callbacks, **values: original([Steps(), *callbacks], **values),
    )
    rows_of(tmp_path, loop=loop, policy="mixed_bfloat16", log_every=4, epochs=1)
    # 4 and 8 are marks; 10 ends the epoch. At step 1, whose end starts the clock, it waits
    # without reading.
    assert reads == {4, 8, 10}


def test_a_run_learns(tmp_path):
    _, result = rows_of(
        tmp_path, policy="mixed_bfloat16",
        epochs=2, steps_per_epoch=78, batch_size=64, optimizer="adamw", learning_rate=0.02,
    )  # fmt: skip
    assert result.validation_accuracy > 0.4  # Ten classes: chance is 0.1.
