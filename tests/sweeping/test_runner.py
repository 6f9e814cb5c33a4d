from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.messages import says
from tfamp.sweeping import die_with_parent
from tfamp.sweeping.runner import Runner

SIGNALS = (signal.SIGINT, signal.SIGTERM)
A, B, C = "float32", "mixed_float16", "mixed_bfloat16"
NAMES = {policy: f"resnet20-fashion_mnist_mini-{policy}-fit-seed0" for policy in (A, B, C)}


class Lines(list):
    """What was said; `react` is called with each line."""

    def __init__(self, react=lambda line: None):
        super().__init__()
        self.react = react

    def __call__(self, line):
        self.append(line)
        self.react(line)


def ticking(step):
    """A clock on which `step` seconds pass between two looks."""
    times = itertools.count(0, step)
    return lambda: next(times)


@pytest.fixture
def cells(make):
    return make(policies=(A, B, C))


@pytest.fixture(autouse=True)
def handlers():
    """The process's own handlers are back after each run."""
    before = [signal.getsignal(signum) for signum in SIGNALS]
    yield
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_one_after_the_other(cells, stand_in):
    lines = Lines()
    outcome = Runner(command=stand_in(), say=lines, clock=ticking(20)).run(cells)
    assert (outcome.failed, outcome.signum) == ([], None)
    assert all(cell.is_finished() for cell in cells)
    assert lines == [
        f"[1/3] {NAMES[A]} (3 to go, no estimate yet)",
        "    Epoch 1/2  1.0 s  loss 2.0",
        "    Epoch 2/2  1.0 s  loss 1.0",
        f"[1/3] {NAMES[A]}: completed in 20 s",
        f"[2/3] {NAMES[B]} (2 to go, about 40 s left)",
        "    Epoch 1/2  1.0 s  loss 2.0",
        "    Epoch 2/2  1.0 s  loss 1.0",
        f"[2/3] {NAMES[B]}: completed in 20 s",
        f"[3/3] {NAMES[C]} (1 to go, about 20 s left)",
        "    Epoch 1/2  1.0 s  loss 2.0",
        "    Epoch 2/2  1.0 s  loss 1.0",
        f"[3/3] {NAMES[C]}: completed in 20 s",
    ]


def test_the_log_holds_all_that_the_process_printed_in_its_order(cells, stand_in):
    cells[0].log.parent.mkdir(parents=True)
    cells[0].log.write_text("of a run before\n" * 100)
    Runner(command=stand_in(), say=Lines()).run(cells[:1])
    assert cells[0].log == cells[0].directory.path / "train.log"
    assert cells[0].log.read_text().splitlines() == [
        "Building ...",
        "Epoch 1/2  1.0 s  loss 2.0",
        "a warning",
        "  step 3/4",
        "Epoch 2/2  1.0 s  loss 1.0",
    ]


def test_finished_cells_count_and_give_the_first_estimate(cells, stand_in, finish):
    finish(cells[0])
    os.utime(cells[0].directory.config, (100.0, 100.0))
    os.utime(cells[0].directory.result, (130.0, 130.0))
    lines = Lines()
    Runner(command=stand_in(), say=lines, clock=ticking(7)).run(cells[1:], finished=cells[:1])
    assert [line for line in lines if "to go" in line] == [
        f"[2/3] {NAMES[B]} (2 to go, about 60 s left)",
        f"[3/3] {NAMES[C]} (1 to go, about 7 s left)",
    ]


def test_nothing_to_run(cells, stand_in):
    lines = Lines()
    outcome = Runner(command=stand_in(), say=lines).run([], finished=cells)
    assert (outcome.failed, outcome.signum, lines) == ([], None, [])


def test_a_failed_cell_is_told_and_the_rest_go_on(cells, stand_in):
    lines = Lines()
    command = stand_in(mixed_float16="fails")
    outcome = Runner(command=command, say=lines, clock=ticking(5)).run(cells)
    assert outcome.failed == [cells[1]]
    assert outcome.signum is None
    assert [cell.is_finished() for cell in cells] == [True, False, True]
    place = lines.index(f"[2/3] {NAMES[B]}: FAILED after 5 s, exit code 3")
    assert lines[place + 1 : place + 11] == [
        *[f"    | line {number}" for number in range(13, 20)],
        "    | ValueError: planted",
        f"    the whole log: {cells[1].log}",
        # A failed cell says nothing about how long one takes.
        f"[3/3] {NAMES[C]} (1 to go, about 5 s left)",
    ]


def test_a_model_that_is_edited_while_the_sweep_runs(make, tmp_path):
    model = tmp_path / "net.py"
    model.write_text("A = 1")
    (cell,) = make(policies=(A,), models=(f"{model}:build",))

    def command(cell):
        record = {"schema_version": 1, "config": cell.config.to_json(), "command_line": ["train"]}
        record["model_sha256"] = {"net.py": "another"}
        place = cell.directory.path
        write = f"""
from pathlib import Path
Path({str(place / "config.json")!r}).write_text({json.dumps(record)!r})
Path({str(place / "result.json")!r}).write_text('{{"status": "completed"}}')
"""
        return [sys.executable, "-I", "-S", "-c", write]

    lines = Lines()
    outcome = Runner(command=command, say=lines, clock=ticking(20)).run([cell])
    assert outcome.failed == [cell]
    said = next(line for line in lines if "FAILED" in line)
    assert says(said, "20 s", "content of net.py", "changed")


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("is_killed", "killed by SIGKILL (out of memory?)"),
        ("lies", "exit code 0, but no result of this configuration"),
    ],
)
def test_ways_to_fail(behaviour, told, cells, stand_in):
    lines = Lines()
    command = stand_in(float32=behaviour)
    outcome = Runner(command=command, say=lines, clock=ticking(5)).run(cells[:2])
    assert outcome.failed == [cells[0]]
    assert lines[1:4] == [
        f"[1/2] {NAMES[A]}: FAILED after 5 s, {told}",
        "    | (it printed nothing)",
        f"    the whole log: {cells[0].log}",
    ]
    assert cells[1].is_finished()


def test_a_result_of_another_config_is_no_result(make, cells, stand_in):
    other = make("--epochs=9", policies=(A,))[0]
    outcome = Runner(command=lambda cell: stand_in()(other), say=Lines()).run(cells[:1])
    assert outcome.failed == cells[:1]


def test_a_command_that_does_not_start(cells, stand_in):
    lines = Lines()
    outcome = Runner(command=lambda cell: ["/absent/python"], say=lines).run(cells[:1])
    assert outcome.failed == cells[:1]
    assert "    | FileNotFoundError: [Errno 2] No such file or directory" in lines


def test_side_by_side(cells, stand_in):
    lines = Lines()
    # The first can end only once the second is under way.
    command = stand_in(float32="completes_when_told")

    seen = {f"{NAMES[A]}: Epoch 1/9  waiting", f"{NAMES[B]}: Epoch 2/2  1.0 s  loss 1.0"}

    def react(line):
        if line in seen and seen <= set(lines):
            os.kill(json.loads((cells[0].directory.path / "pid.json").read_text()), signal.SIGTERM)

    lines.react = react
    outcome = Runner(jobs=2, command=command, say=lines).run(cells[:2])
    assert outcome.failed == []
    assert lines[:2] == [
        f"[1/2] {NAMES[A]} (2 to go, no estimate yet)",
        f"[2/2] {NAMES[B]} (2 to go, no estimate yet)",
    ]
    assert f"{NAMES[A]}: Epoch 1/9  waiting" in lines
    assert {line.split(" in ")[0] for line in lines if " in " in line} == {
        f"[1/2] {NAMES[A]}: completed",
        f"[2/2] {NAMES[B]}: completed",
    }


def test_not_more_than_jobs(make, stand_in):
    lines = Lines()
    cells = make(policies=(A, B), seeds=(0, 1, 2))
    assert Runner(jobs=2, command=stand_in(), say=lines).run(cells).failed == []
    running = 0
    for line in lines:
        running += " to go, " in line
        running -= ": completed in " in line
        assert 0 <= running <= 2
    assert running == 0


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_lets_the_running_cell_end_and_starts_no_more(signum, cells, stand_in, capfd):
    lines = Lines(lambda line: "waiting" in line and os.kill(os.getpid(), signum))
    command = stand_in(float32="waits")
    outcome = Runner(command=command, say=lines, clock=ticking(5)).run(cells)
    assert (outcome.failed, outcome.signum) == ([], signum)
    assert lines == [
        f"[1/3] {NAMES[A]} (3 to go, no estimate yet)",
        "    Epoch 1/9  waiting",
        f"[1/3] {NAMES[A]}: stopped after 5 s",
    ]
    # Once, and SIGTERM whatever came.
    told = json.loads((cells[0].directory.path / "told.json").read_text())
    assert told == {"signum": signal.SIGTERM}
    assert not cells[1].directory.path.exists()
    (line,) = capfd.readouterr().err.split("\n")[1:-1]
    assert says(line, "Stopping", "next step", "once more")


def test_a_signal_goes_to_all_that_run(cells, stand_in):
    waiting = []

    def react(line):
        waiting.extend(["one"] if "waiting" in line else [])
        if len(waiting) == 2:
            waiting.append("signalled")
            os.kill(os.getpid(), signal.SIGTERM)

    command = stand_in(float32="waits", mixed_float16="waits")
    outcome = Runner(jobs=2, command=command, say=Lines(react)).run(cells)
    assert outcome.signum == signal.SIGTERM
    assert all((cell.directory.path / "told.json").exists() for cell in cells[:2])
    assert not cells[2].directory.path.exists()


def test_none_is_started_while_another_still_ends(cells, stand_in):
    waiting = []

    def react(line):
        waiting.extend(["one"] if "waiting" in line else [])
        if len(waiting) == 2 or "stopped" in line:
            waiting.append("signalled")
            os.kill(os.getpid(), signal.SIGTERM)

    command = stand_in(float32="waits", mixed_float16="is_stubborn")
    lines = Lines(react)
    outcome = Runner(jobs=2, command=command, say=lines, clock=ticking(5)).run(cells)
    assert outcome.signum == signal.SIGTERM
    assert [line.split(": stopped")[0] for line in lines if "stopped" in line] == [
        f"[1/3] {NAMES[A]}",
        f"[2/3] {NAMES[B]}",
    ]
    assert not cells[2].directory.path.exists()


def test_a_cell_that_completes_all_the_same(cells, stand_in):
    lines = Lines(lambda line: "waiting" in line and os.kill(os.getpid(), signal.SIGINT))
    command = stand_in(float32="completes_when_told")
    outcome = Runner(command=command, say=lines, clock=ticking(5)).run(cells)
    assert outcome.signum == signal.SIGINT
    assert lines[-1] == f"[1/3] {NAMES[A]}: completed in 5 s"


def test_a_second_signal_kills(cells, stand_in):
    lines = Lines(lambda line: "ing" in line and os.kill(os.getpid(), signal.SIGINT))
    command = stand_in(float32="is_stubborn")
    outcome = Runner(command=command, say=lines, clock=ticking(5)).run(cells)
    assert outcome.signum == signal.SIGINT
    assert lines[1:] == [
        "    Epoch 1/9  waiting",
        "    Epoch 2/9  not listening",
        f"[1/3] {NAMES[A]}: stopped after 5 s",
    ]


def test_a_signal_while_a_cell_is_started(cells, stand_in):
    def command(cell):
        os.kill(os.getpid(), signal.SIGTERM)
        return stand_in(float32="is_stubborn")(cell)

    lines = Lines()
    # Told as it starts, before it can be stubborn, or else killed below: it must not go on.
    lines.react = lambda line: "ing" in line and os.kill(os.getpid(), signal.SIGTERM)
    outcome = Runner(command=command, say=lines).run(cells)
    assert outcome.signum == signal.SIGTERM
    assert lines[-1].startswith(f"[1/3] {NAMES[A]}: stopped")


def test_a_fault_of_the_sweeps_own_leaves_no_process(cells, stand_in):
    def react(line):
        if "waiting" in line:
            raise BrokenPipeError("nobody reads this")

    with pytest.raises(BrokenPipeError):
        Runner(command=stand_in(float32="is_stubborn"), say=Lines(react)).run(cells)
    pid = json.loads((cells[0].directory.path / "pid.json").read_text())
    # Waited for, so that not even a dead one is left.
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_process_holds_the_lock_and_nothing_else_of_the_sweeps(cells, stand_in, tmp_path):
    lock, other = tmp_path / "lock", tmp_path / "other"
    with lock.open("w") as held, other.open("w"):
        Runner(command=stand_in(), say=Lines(), held=[held.fileno()]).run(cells[:1])
    files = json.loads((cells[0].directory.path / "held.json").read_text())
    assert str(lock) in files
    assert str(other) not in files
    assert "/dev/null" in files


def test_ctrl_c_in_a_terminal_comes_to_the_sweep_alone(cells, stand_in):
    Runner(command=stand_in(), say=Lines()).run(cells[:1])
    place = cells[0].directory.path
    pid, session = (json.loads((place / name).read_text()) for name in ("pid.json", "session.json"))
    assert session == pid != os.getsid(0)


DRIVER = """
import fcntl, json, os, sys
from tfamp.sweeping import runner
from tfamp.sweeping.cells import Cell
from tfamp.run.flags import config_from_arguments

lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
arguments = tuple(sys.argv[3:])
say = lambda line: print(line, flush=True)
runner.Runner(command=lambda cell: json.loads(sys.argv[2]), say=say, held=[lock]).run(
    [Cell(config_from_arguments(arguments), arguments)]
)
"""


def test_a_killed_sweep_leaves_no_process(cells, stand_in, tmp_path):
    lock = tmp_path / "lock"
    command = json.dumps(stand_in(float32="is_stubborn")(cells[0]))
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(lock), command, *cells[0].arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "to go" in process.stdout.readline()
    assert process.stdout.readline() == "    Epoch 1/9  waiting\n"
    process.kill()
    process.communicate()
    # The cell's process holds the lock too: it comes free when that is gone, and not before.
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert not cells[0].is_finished()


def test_an_orphan_does_not_begin():
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            die_with_parent.__file__,
            str(os.getppid()),
            "/bin/echo",
            "begun",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert says(done.stderr, os.getppid(), "gone") and len(done.stderr.splitlines()) == 1
