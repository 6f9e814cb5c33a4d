"""The recorder on a clock and a device of the test's own: each figure to the last digit."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_scripts import compiled, fit, scaled

import tfamp
from tfamp.run import records, schema
from tfamp.run.directory import RunDirectory
from tfamp.telemetry.clock import StepClock
from tfamp.telemetry.recorder import Recorder


def as_in_result_json(recorder):
    return schema.to_json(recorder.result())


class Given:
    """What a loop knows of its steps: an accuracy at each mark, or nothing."""

    def __init__(self, recorder, accuracy=None):
        self.recorder, self.accuracy, self.waits = recorder, accuracy, 0

    def wait(self):
        self.waits += 1

    def take(self, has_losses):
        accuracy = {records.TRAIN_ACCURACY: self.accuracy} if self.accuracy else {}
        return {self.recorder.step: accuracy}


@pytest.fixture
def time():
    """Seconds that pass only when told to."""

    class Time:
        seconds = 1000.0

        def __call__(self):
            return self.seconds

    return Time()


@pytest.fixture
def device(monkeypatch):
    """A device whose peak falls only where it is reset."""

    class Device:
        current = peak = 0

        def uses(self, current):
            self.current, self.peak = current, max(self.peak, current)

        def reset(self, name):
            self.peak = self.current

    made = Device()
    experimental = tf.config.experimental
    monkeypatch.setattr(
        experimental, "get_memory_info", lambda name: {"current": made.current, "peak": made.peak}
    )
    monkeypatch.setattr(experimental, "reset_memory_stats", made.reset)
    return made


def begun(path, time, optimizer=None, **values):
    recorder = Recorder(RunDirectory(path), clock=StepClock(time), **values)
    recorder.begin({"": optimizer or keras.optimizers.SGD(0.5)}, Given(recorder))
    return recorder


def train(recorder, time, milliseconds):
    """Steps that take so long each."""
    for each in milliseconds:
        time.seconds += each / 1e3
        recorder.count(recorder.step + 1)


def test_times_and_rates_are_those_of_the_clock(tmp_path, time, device):
    recorder = begun(tmp_path, time, log_every=2, batch_size=32)
    recorder.begin_epoch(0)
    # The first step compiles for 5 s. Windows: [step 2] 16 ms, [3, 4] 32, [5, 6] 8 ms a step.
    train(recorder, time, [5000, 16, 32, 32, 4, 12])
    recorder.end_epoch_training()
    assert not recorder.clock.is_running
    time.seconds += 60  # An evaluation.
    recorder.end_epoch({})
    time.seconds += 30  # And whatever lies between two epochs.
    recorder.begin_epoch(1)
    # [7, 8] 64 ms a step, [9] 8 ms.
    train(recorder, time, [64, 64, 8])
    recorder.end_epoch_training()
    recorder.end_epoch({})
    result = as_in_result_json(recorder)
    recorder.close()
    rows = records.read_rows(tmp_path / "metrics.jsonl")
    timed = {r["step"]: (r[records.STEP_TIME], r[records.THROUGHPUT]) for r in rows
             if records.STEP_TIME in r}  # fmt: skip
    expected = {2: 16, 4: 32, 6: 8, 8: 64, 9: 8}
    assert list(timed) == list(expected)
    for step, ms in expected.items():
        # 32 examples in so many milliseconds.
        assert timed[step] == pytest.approx((ms, 32 / (ms / 1000)), rel=1e-9)
    # By their steps: 8 ms three times, 16 once, 32 and 64 twice each.
    step_time = result["step_time_ms"]
    assert step_time == pytest.approx({"median": 16.0, "p95": 64.0, "n": 8}, rel=1e-9)
    assert result["examples_per_sec"] == pytest.approx(2000.0, rel=1e-9)
    assert result["first_call_sec"] == pytest.approx(5.0)
    epochs = [row[records.EPOCH_TIME] for row in rows if row["kind"] == "epoch"]
    assert epochs == pytest.approx([5.096, 0.136], rel=1e-9)
    assert result["epoch_time_sec"] == epochs and result["epochs"] == 2
    assert recorder._metrics.waits == 1


def test_without_a_batch_size_there_is_no_rate(tmp_path, time, device):
    recorder = begun(tmp_path, time, log_every=2, batch_size=None)
    recorder.begin_epoch(0)
    train(recorder, time, [5000, 16, 16])
    recorder.end_epoch_training()
    assert as_in_result_json(recorder)["examples_per_sec"] is None
    assert as_in_result_json(recorder)["step_time_ms"]["n"] == 2
    assert records.THROUGHPUT not in recorder.files.last_step_row
    recorder.close()


def test_a_phase_after_one_that_broke_off_counts_its_marks_anew(tmp_path, time, device):
    recorder = begun(tmp_path, time, log_every=4, batch_size=None)
    recorder.begin_epoch(0)
    train(recorder, time, [10, 10, 10])
    recorder.begin({"": keras.optimizers.SGD(0.5)}, Given(recorder))
    recorder.begin_epoch(0)
    train(recorder, time, [10, 10, 10, 10, 10])
    recorder.end_epoch_training()
    recorder.end_epoch({})
    recorder.close()
    rows = records.read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if records.STEP_TIME in row] == [7, 8]
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [1]


def test_a_memory_peak_is_that_of_its_epoch(tmp_path, time, device):
    recorder = begun(tmp_path, time, log_every=10, batch_size=None)
    device.uses(9000)  # As it was built.
    device.uses(100)
    for epoch, (peak, after) in enumerate([(700, 300), (500, 200), (600, 250)]):
        recorder.begin_epoch(epoch)
        device.uses(peak)
        device.uses(after)
        train(recorder, time, [10])
        recorder.end_epoch_training()
        device.uses(8000)  # An evaluation.
        device.uses(after)
        recorder.end_epoch({})
    result = as_in_result_json(recorder)
    recorder.close()
    rows = [row for row in records.read_rows(tmp_path / "metrics.jsonl") if row["kind"] == "epoch"]
    assert [row[records.DEVICE_PEAK] for row in rows] == [700, 500, 600]
    assert [row[records.DEVICE_CURRENT] for row in rows] == [300, 200, 250]
    assert result["device_peak_bytes"] == 700


# Saving and going on.

STEPS, STEPS_PER_EPOCH = 18, 6
NON_FINITE_GRADIENTS = {2, 3, 9, 15}
NON_FINITE_LOSSES = {5: math.nan, 14: math.inf}


class Process:
    """Trains one weight with a loss scale; what it saves another process takes up."""

    def __init__(self, path, time, device, kind, saved=None):
        self.time, self.device = time, device
        self.optimizer = kind(keras.optimizers.SGD(0.125), 2.0**10, dynamic_growth_steps=3)
        self.optimizer.build([keras.Variable([1.0])])
        self.recorder = Recorder(RunDirectory(path), 4, 16, StepClock(time))
        self.recorder.non_finite.say = lambda line: None
        if saved:
            text, values = saved
            self.recorder.restore(json.loads(text))
            for variable, value in zip(self.optimizer.variables, values, strict=True):
                variable.assign(value)
        device.current = device.peak = 0
        self.recorder.begin({"": self.optimizer}, Given(self.recorder, accuracy=0.75))

    def train(self, until):
        """Takes the steps up to one, from where the run is."""
        recorder, first = self.recorder, self.recorder.step + 1
        for step in range(first, until + 1):
            epoch, of_epoch = divmod(step - 1, STEPS_PER_EPOCH)
            if of_epoch == 0 or step == first:
                recorder.begin_epoch(epoch)
            self.time.seconds += 0.25
            self.device.uses(900 - 100 * of_epoch)
            self.optimizer.scale_loss(tf.constant(NON_FINITE_LOSSES.get(step, 1.0 / step)))
            self.optimizer.apply([tf.constant([math.inf if step in NON_FINITE_GRADIENTS else 1.0])])
            recorder.count(step)
            if step % STEPS_PER_EPOCH == 0:
                recorder.end_epoch_training()
                # The last epoch is not validated.
                recorder.end_epoch({records.VALIDATION_LOSS: 1.0 / step} if step < STEPS else {})

    def save(self):
        """What is left of the process, which ends as by a kill."""
        state = json.dumps(self.recorder.state(), allow_nan=False)
        self.recorder.files.close()
        return state, [np.array(variable) for variable in self.optimizer.variables]

    def left(self):
        """The run's rows, its result and its state, without what no two runs have in common."""
        state, result = self.recorder.state(), as_in_result_json(self.recorder)
        self.recorder.close()
        timed = {records.STEP_TIME, records.THROUGHPUT, records.HOST_PEAK}
        rows = [
            {name: value for name, value in row.items() if name not in timed}
            for row in records.read_rows(self.recorder.directory.metrics)
        ]
        del state["windows"], state["host_peak"]
        del result["step_time_ms"], result["host_peak_rss_bytes"]
        return rows, result, state


TFAMP, KERAS = tfamp.LossScaleOptimizer, keras.optimizers.LossScaleOptimizer
# Before the first step, after it, at a mark (4), off the marks (5, 11), between two epochs (6).
SAVED = [
    *((TFAMP, step) for step in (0, 1, 4, 5, 6, 11, STEPS)),
    *((KERAS, step) for step in (4, 6)),
]


@pytest.mark.parametrize(("kind", "step"), SAVED)
def test_a_run_that_is_taken_up_is_as_if_it_had_not_stopped(tmp_path, time, device, kind, step):
    for name in ("whole", "taken_up"):
        (tmp_path / name).mkdir()
    whole = Process(tmp_path / "whole", time, device, kind)
    whole.train(STEPS)
    rows, result, state = whole.left()
    # What is compared says something.
    assert (state["step"], result["epochs"]) == (STEPS, 3)
    assert result["loss_scale"]["skipped"] == len(NON_FINITE_GRADIENTS)
    # Keras's own scaler keeps no losses.
    found = {"first_step": 5, "what": "loss", "steps": 2, "weight": None} if kind is TFAMP else None
    assert result["non_finite"] == found
    assert [row[records.DEVICE_PEAK] for row in rows if row["kind"] == "epoch"] == [900] * 3

    broken_off = Process(tmp_path / "taken_up", time, device, kind)
    broken_off.train(step)
    taken_up = Process(tmp_path / "taken_up", time, device, kind, saved=broken_off.save())
    taken_up.train(STEPS)
    np.testing.assert_equal(taken_up.left(), (rows, result, state))


@pytest.mark.parametrize("step", [0, 5, 6])
def test_what_was_restored_can_be_saved_before_it_trains(tmp_path, time, device, step):
    process = Process(tmp_path, time, device, TFAMP)
    process.train(step)
    text, _ = process.save()
    recorder = Recorder(RunDirectory(tmp_path), 4, 16, StepClock(time))
    recorder.restore(json.loads(text))
    time.seconds += 1000.0
    assert json.dumps(recorder.state()) == text


def test_the_callback_goes_on_with_its_epochs_and_steps(tmp_path):
    def callback(state=None):
        made = tfamp.PrecisionTelemetry(tmp_path, log_every=3, batch_size=8, owns_result=False)
        if state:
            made.restore(json.loads(json.dumps(state)))
        return made

    model = compiled(scaled(0.0))
    first = callback()
    fit(model, first, epochs=2)
    second = callback(first.state())
    fit(model, second, epochs=4, initial_epoch=2)
    rows = records.read_rows(tmp_path / "metrics.jsonl")
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 33))
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [0, 1, 2, 3]
    assert second.result().steps_attempted == second.step == 32
    assert second.result().first_call_sec == first.result().first_call_sec
    # Nothing is learned, so each epoch says the same; marks are where they were.
    accuracies = [(row["step"] % 8, row.get(records.TRAIN_ACCURACY)) for row in steps]
    assert accuracies[:8] == accuracies[8:16] == accuracies[16:24] == accuracies[24:]
