"""Ctrl-C and SIGTERM end a run with its rows written."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from short_runs import SHORT, TINY

from tfamp.run import records
from tfamp.run.config import Config, resolve
from tfamp.training import trainer
from tfamp.training.interrupt import RunInterrupted, StopOnSignal

ROOT = Path(__file__).parents[2]
LOOPS = ("fit", "custom")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def step_rows(run):
    rows = records.read_rows(run / "metrics.jsonl")
    return [row["step"] for row in rows if row["kind"] == "step"]


@pytest.mark.parametrize(("loop", "signum"), [("fit", SIGNALS[0]), ("custom", SIGNALS[1])])
def test_a_signal_ends_the_process(loop, signum, tmp_path):
    arguments = [
        f"--model={TINY}",
        f"--loop={loop}",
        f"--logdir={tmp_path}",
        "--run_name=run",
        "--epochs=100000",
        "--steps_per_epoch=50",
        "--log_every=7",
        "--batch_size=50",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfamp.train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell that starts this in the background would have SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert any(line.startswith("Epoch 2/") for line in process.stdout)
        seen = len(step_rows(tmp_path / "run"))
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + signum
    assert stderr == (
        f"\nInterrupted: stopped by {signum.name}. What was measured is in {tmp_path}/run.\n"
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["error"]) == ("interrupted", None)
    steps = step_rows(tmp_path / "run")
    assert len(steps) >= seen >= 100
    assert steps == list(range(1, result["steps_attempted"] + 1))


@pytest.fixture
def run_until(tmp_path, monkeypatch):
    """Trains with a callback that sends signals to this process at chosen moments."""

    def run(loop, at, **changes):
        class Signals(trainer.ProgressBar):
            pass

        for hook, act in at.items():
            setattr(Signals, hook, lambda self, *arguments, act=act, **logs: act(*arguments))
        monkeypatch.setattr(trainer, "ProgressBar", Signals)
        values = SHORT | {"loop": loop, "epochs": 2, "log_every": 100} | changes
        config = resolve(Config(**values))
        config = dataclasses.replace(config, logdir=str(tmp_path), run_name="run")
        before = [signal.getsignal(signum) for signum in SIGNALS]
        with pytest.raises(RunInterrupted) as raised:
            trainer.train(config, say=lambda line: None)
        # Ctrl-C is Python's own again.
        assert [signal.getsignal(signum) for signum in SIGNALS] == before
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (result["status"], result["error"]) == ("interrupted", None)
        return raised.value, result

    return run


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("signum", SIGNALS)
def test_the_step_is_finished_and_every_row_written(loop, signum, run_until, tmp_path):
    def in_the_third_step(batch, *_):
        if batch == 2:
            os.kill(os.getpid(), signum)

    stopped, result = run_until(loop, {"on_train_batch_begin": in_the_third_step})
    assert stopped.signum == signum
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("step", 1),
        ("step", 2),
        ("step", 3),
        ("event", 3),
    ]
    assert rows[-1]["event"] == "interrupted"
    assert all(records.TRAIN_LOSS in row for row in rows[:3])
    assert result["steps_attempted"] == 3
    assert result["epochs"] == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_signal_during_evaluation(loop, run_until, tmp_path):
    _, result = run_until(
        loop, {"on_test_batch_begin": lambda *_: os.kill(os.getpid(), signal.SIGTERM)}
    )
    assert step_rows(tmp_path / "run") == [1, 2, 3, 4]
    assert result["steps_attempted"] == 4


@pytest.mark.parametrize("loop", LOOPS)
def test_a_signal_at_the_end_of_the_last_epoch_is_not_lost(loop, run_until, tmp_path):
    def at_the_end(epoch, *_):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    run_until(loop, {"on_epoch_end": at_the_end})
    assert step_rows(tmp_path / "run") == list(range(1, 9))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_signal_does_not_wait(loop, run_until, tmp_path):
    reached = []

    def twice(batch, *_):
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the first")
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("after the second")

    stopped, _ = run_until(loop, {"on_train_batch_begin": twice})
    assert stopped.signum == signal.SIGTERM
    assert reached == ["after the first"]


def test_a_signal_while_data_and_model_are_made(run_until, tmp_path, monkeypatch):
    def build(config):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "build", build)
    _, result = run_until("fit", {})
    assert "steps_attempted" not in result
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_outside_a_loop_a_signal_raises_at_once():
    with StopOnSignal(), pytest.raises(RunInterrupted, match="stopped by SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
