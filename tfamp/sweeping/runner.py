"""Runs the cells of a sweep, each in a fresh process."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from tfamp.run.errors import InputError
from tfamp.sweeping import die_with_parent
from tfamp.sweeping.cell import Cell
from tfamp.sweeping.remaining_time import RemainingTime, duration

_EPOCH_LINE = re.compile(r"Epoch \d+/\d+\b")
# What is shown of a failed cell's log.
_LAST_LINES = 8
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass
class Outcome:
    """How a sweep ended.

    Attributes:
        failed: The cells that ended and are not completed.
        signum: The signal that ended the sweep, or None.
    """

    failed: list[Cell] = dataclasses.field(default_factory=list)
    signum: int | None = None


@dataclasses.dataclass
class _Child:
    """A cell's process.

    Attributes:
        cell: What it trains.
        label: Which cell of how many, for the lines that tell of it.
        process: The process.
        pipe: What it prints, as it comes.
        log: The file that takes it.
        began: When, on the runner's clock.
        unread: The beginning of a line whose end has not come yet.
        is_told: Whether it was told to end.
    """

    cell: Cell
    label: str
    process: subprocess.Popen[bytes]
    pipe: io.FileIO
    log: io.FileIO
    began: float
    unread: bytes = b""
    is_told: bool = False


class Runner:
    """Runs cells, some at a time, and tells how it goes.

    Args:
        jobs: Processes at a time.
        command: Makes the command line of a cell's process.
        say: Where lines for the user go.
        clock: Seconds on a clock that never goes back.
        held: File descriptors that the processes keep open: the lock of the sweep.
    """

    def __init__(
        self,
        jobs: int = 1,
        command: Callable[[Cell], list[str]] = Cell.command,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        held: Sequence[int] = (),
    ) -> None:
        self._jobs = jobs
        self._command = command
        self._say = say
        self._clock = clock
        self._held = tuple(held)
        self._children: list[_Child] = []
        self._outcome = Outcome()

    def run(self, waiting: Sequence[Cell], finished: Sequence[Cell] = ()) -> Outcome:
        """Runs cells to their end, whatever becomes of each.

        A first SIGINT or SIGTERM lets the running ones end at their next step and starts no more;
        a second one kills them.

        Args:
            waiting: The cells to run, in order.
            finished: The cells that are passed over; they count for numbers and the estimate.
        """
        self._outcome = Outcome()
        earlier = [seconds for cell in finished if (seconds := cell.seconds_on_disk()) is not None]
        remaining = RemainingTime(self._jobs, earlier)
        queue, number = collections.deque(waiting), len(finished)
        total = len(waiting) + len(finished)
        with self._signals(), selectors.DefaultSelector() as selector:
            try:
                while self._children or (queue and self._outcome.signum is None):
                    while queue and len(self._children) < self._jobs and not self._outcome.signum:
                        number += 1
                        left = len(queue) + len(self._children)
                        label = f"[{number}/{total}] {queue[0].name}"
                        self._say(f"{label} ({left} to go, {remaining.in_words(left)})")
                        self._start(queue.popleft(), label, selector)
                    self._listen(selector, remaining)
            finally:
                # Only where something of the sweep's own failed is one left.
                for child in self._children:
                    _kill(child)
                    child.process.wait()
                    child.pipe.close()
                    child.log.close()
                self._children.clear()
        return self._outcome

    def _start(self, cell: Cell, label: str, selector: selectors.BaseSelector) -> None:
        cell.log.parent.mkdir(parents=True, exist_ok=True)
        log = io.FileIO(cell.log, "w")
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(Path(die_with_parent.__file__).resolve())),
                    *(str(os.getpid()), *self._command(cell)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=self._held,
                # Lines of stdout and stderr keep their order.
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                # Ctrl-C in a terminal comes to the sweep alone, which hands on one signal.
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        pipe = io.FileIO(read_end, "r")
        child = _Child(cell, label, process, pipe, log, self._clock())
        selector.register(pipe, selectors.EVENT_READ, child)
        self._children.append(child)
        if self._outcome.signum is not None:
            # The signal came between the look for it and here.
            _tell(child)

    def _listen(self, selector: selectors.BaseSelector, remaining: RemainingTime) -> None:
        # A process whose own child keeps the pipe open is noticed when the second is over.
        for key, _ in selector.select(timeout=1.0):
            child: _Child = key.data
            if self._read(child) == b"":
                selector.unregister(child.pipe)
                # The pipe is closed a moment before the process has ended.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(timeout=1.0)
        for child in list(self._children):
            if child.process.poll() is None:
                continue
            while self._read(child):
                pass
            with contextlib.suppress(KeyError):
                selector.unregister(child.pipe)
            child.pipe.close()
            child.log.close()
            self._children.remove(child)
            self._end(child, remaining)

    def _read(self, child: _Child) -> bytes | None:
        """Moves what the process printed into its log: b"" at its end, None where none is there."""
        chunk = child.pipe.read(65536)
        if not chunk:
            return chunk
        child.log.write(chunk)
        *lines, child.unread = (child.unread + chunk).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if _EPOCH_LINE.match(text):
                self._say(f"{child.cell.name}: {text}" if self._jobs > 1 else f"    {text}")
        return chunk

    def _end(self, child: _Child, remaining: RemainingTime) -> None:
        cell, code = child.cell, child.process.returncode
        seconds = self._clock() - child.began
        if code == 0 and _is_finished(cell):
            remaining.completed(seconds)
            self._say(f"{child.label}: completed in {duration(seconds)}")
            return
        if self._outcome.signum is not None:
            self._say(f"{child.label}: stopped after {duration(seconds)}")
            return
        self._outcome.failed.append(cell)
        self._say(f"{child.label}: FAILED after {duration(seconds)}, {_ended(code, cell)}")
        for line in _last_lines(cell.log):
            self._say(f"    | {line}")
        self._say(f"    the whole log: {cell.log}")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {signum: signal.signal(signum, self._on_signal) for signum in _SIGNALS}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_second = self._outcome.signum is not None
        self._outcome.signum = signum
        if not is_second:
            # Not print, which a handler may have come into the middle of.
            os.write(2, b"\nStopping at the next step; once more kills at once.\n")
        for child in list(self._children):
            if is_second:
                _kill(child)
            else:
                _tell(child)


def _tell(child: _Child) -> None:
    # SIGTERM whatever came: while a process starts, SIGINT can be ignored or leave a traceback.
    if not child.is_told:
        child.is_told = True
        child.process.terminate()


def _kill(child: _Child) -> None:
    # Its session: what the process started itself must not keep the lock and the pipe.
    if child.process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)


def _is_finished(cell: Cell) -> bool:
    # A result that cannot be read fails its cell, not the sweep.
    try:
        return cell.is_finished()
    except InputError:
        return False


def _ended(code: int, cell: Cell) -> str:
    if code == 0:
        with contextlib.suppress(InputError):
            changed = [each.what for each in cell.conflict() if each.is_model_file]
            if changed:
                return f"the content of {changed[0]} changed while the sweep ran"
        return "exit code 0, but no result of this configuration"
    if code > 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"killed by signal {-code}"


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-_LAST_LINES:] or ["(it printed nothing)"]
