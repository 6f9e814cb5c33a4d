"""Ctrl-C and SIGTERM end a run with its rows written."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from short_runs import ODD, SHORT, TINY

from tests.marks import slow
from tests.messages import says
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.training import trainer
from tfamp.training.interrupt import RunInterrupted, StopOnSignal

ROOT = Path(__file__).parents[2]
LOOPS = ("fit", "custom")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = "\nStopping after this step ...; Ctrl-C again stops at once.\n"


def step_rows(run):
    rows = records.read_rows(run / "metrics.jsonl")
    return [row["step"] for row in rows if row["kind"] == "step"]


@pytest.mark.parametrize(("loop", "signum"), [("fit", SIGNALS[0]), slow("custom", SIGNALS[1])])
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
        "--nosave_model",
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
    assert stderr.startswith(STOPPING)
    (line,) = stderr.removeprefix(STOPPING).split("\n")[1:-1]
    assert says(line, "Interrupted", signum.name, f"{tmp_path}/run.")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["error"]) == ("interrupted", None)
    steps = step_rows(tmp_path / "run")
    assert len(steps) >= seen >= 100
    assert steps == list(range(1, result["steps_attempted"] + 1))


def read_from(pipe, process):
    """What a process writes into a named pipe; fails where it ends without."""
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)) as end:
        while process.poll() is None:
            if select.select([end], [], [], 0.1)[0] and (said := end.read()):
                return said
    pytest.fail(process.stderr.read())


@pytest.mark.slow
@pytest.mark.parametrize(("loop", "presses"), [("custom", 2), ("fit", 1)])
def test_ctrl_c_while_the_main_thread_is_not_in_python(loop, presses, tmp_path):
    """As while XLA compiles: Python's own handler would wait for the step, which never ends."""
    for pipe in ("reached", "go"):
        os.mkfifo(tmp_path / pipe)
    arguments = [
        f"--model={ODD}:waits",
        f"--loop={loop}",
        f"--logdir={tmp_path}",
        "--run_name=run",
        "--batch_size=50",
        "--nojit_compile",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfamp.train", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"WAITS_IN": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert read_from(tmp_path / "reached", process) == "here"
        process.send_signal(signal.SIGINT)
        said = process.stderr.readline() + process.stderr.readline()
        assert said == STOPPING
        if presses == 2:
            process.send_signal(signal.SIGINT)
        else:
            (tmp_path / "go").write_text("on")
        _, stderr = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    at_once = ", at once" if presses == 2 else ""
    (line,) = stderr.split("\n")[1:-1]
    assert says(line, "Interrupted", f"SIGINT{at_once}.", f"{tmp_path}/run.")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["error"]) == ("interrupted", None)
    assert result["jit_compile"] is False
    # A step that is broken off has been attempted or not, and has no row.
    steps = 0 if presses == 2 else 1
    assert steps <= result["steps_attempted"] <= 1
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["kind"] for row in rows] == ["step"] * steps + ["event"]
    assert rows[-1]["event"] == "interrupted"


class _Screen:
    """A process on a terminal of 80 columns, and what it has written there."""

    def __init__(self, *arguments):
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, "-m", "tfamp.train", *arguments])
        size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
        self.text = ""

    def read(self):
        """Takes in what comes next; returns False at the end."""
        try:
            self.text += os.read(self._terminal, 1 << 16).decode()
        except OSError:
            return False
        return True

    def read_until(self, words):
        while words not in self.text:
            assert self.read(), self.text

    def press_ctrl_c(self):
        os.write(self._terminal, b"\x03")

    def exit_code(self):
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait_for_file(self, folder, pattern):
        """Until a file is there; the terminal is read meanwhile."""
        while not list(folder.glob(pattern)):
            if select.select([self._terminal], [], [], 0.1)[0]:
                assert self.read(), self.text


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_on_a_terminal_while_xla_compiles(loop, presses, tmp_path, monkeypatch):
    """resnet20 in mixed_float16, which takes XLA some ten seconds."""
    # XLA writes a module down when it begins to compile it.
    dump = tmp_path / "dump"
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={dump} --xla_dump_hlo_pass_re=none")
    screen = _Screen(
        "--policy=mixed_float16", f"--loop={loop}", f"--logdir={tmp_path}", "--run_name=run"
    )
    step = {"fit": "one_step_on_data", "custom": "on_each_replica"}[loop]
    screen.wait_for_file(dump, f"*{step}*")
    screen.press_ctrl_c()
    # The compiler is still at it: the step's first row comes later.
    screen.read_until("Stopping after this step ...; Ctrl-C again stops at once.\r\n")
    assert step_rows(tmp_path / "run") == []
    if presses == 2:
        screen.press_ctrl_c()
    assert screen.exit_code() == 128 + signal.SIGINT
    at_once = ", at once" if presses == 2 else ""
    line = screen.text.splitlines()[-1]
    assert says(line, "Interrupted", f"SIGINT{at_once}.", f"{tmp_path}/run.")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["jit_compile"]) == ("interrupted", True)
    assert step_rows(tmp_path / "run") == ([1] if presses == 1 else [])


def test_a_run_that_is_interrupted_before_it_is_built_says_what_was_asked(run_until, monkeypatch):
    def build(config):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "build", build)
    _, result = run_until("fit", {}, jit_compile=True)
    assert result["jit_compile"] is True


def test_a_signal_while_the_end_is_written_does_not_break_it_off(tmp_path, capfd):
    written = []

    def write_end(error):
        os.kill(os.getpid(), signal.SIGINT)
        written.append(error)

    with StopOnSignal(write_end) as stop:
        stop.end(None)
    assert written == [None]
    assert says(capfd.readouterr().err, "Stopping", "written", "Ctrl-C")


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


@pytest.mark.parametrize(
    ("signum", "loop"),
    [
        (signal.SIGINT, "fit"),
        (signal.SIGTERM, "custom"),
        slow(signal.SIGINT, "custom"),
        slow(signal.SIGTERM, "fit"),
    ],
)
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


@pytest.mark.parametrize("loop", ["custom", slow("fit")])
def test_a_signal_during_evaluation(loop, run_until, tmp_path):
    _, result = run_until(
        loop,
        {"on_test_batch_begin": lambda *_: os.kill(os.getpid(), signal.SIGTERM)},
        jit_compile=None,
    )
    # What was decided, not what was asked.
    assert result["jit_compile"] is False
    assert step_rows(tmp_path / "run") == [1, 2, 3, 4]
    assert result["steps_attempted"] == 4


@pytest.mark.parametrize("loop", ["custom", slow("fit")])
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

    stopped, _ = run_until(loop, {"on_train_batch_begin": twice}, save_model=True)
    assert stopped.signum == signal.SIGTERM
    assert reached == ["after the first"]
    # Nor for the model, which takes seconds.
    saved = json.loads((tmp_path / "run" / "result.json").read_text())["saved"]
    assert (saved["weights"], saved["model"]) == ("final.weights.h5", None)
    assert saved["why_no_model"] == "Ctrl-C left it out."


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
