"""Ctrl-C and SIGTERM end a run at the next step, with its rows written.

Python's own handlers run only where the main thread runs Python: while XLA compiles, which takes
tens of seconds, it does not. So a thread is told of each signal too, through the wake-up file
descriptor that the interpreter writes to at once. It acknowledges the first signal and, where the
main thread does not answer a second one, ends the process itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import keras

# How long the main thread may take to answer a second signal, and the run's files to be written
# without it, in seconds.
_PATIENCE = 1.0
_FILES = 10.0


class RunInterrupted(BaseException):
    """The user or the system asked the run to stop.

    Like KeyboardInterrupt no Exception, so that no `except Exception` on its way takes it for a
    mistake of its own.

    Attributes:
        signum: The signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopOnSignal(keras.callbacks.Callback):
    """While entered, turns the first SIGINT or SIGTERM into `RunInterrupted`.

    Inside a loop the exception waits for the end of the step, so that no row and no weight is
    half written; outside, and at a second signal, it is raised at once. While the end of the run is
    being written a signal does not break that off. Where a second signal has no such answer within
    a second, or the writing takes more than ten, another thread ends the process with the exit
    code of the signal; it writes the end of the run itself where the main thread has not begun to.

    Args:
        write_end: Writes the end of the run, for `end`; takes what ended it.
        place: Where it is written, for a message.
    """

    def __init__(
        self,
        write_end: Callable[[BaseException | None], None] = lambda error: None,
        place: str = "",
    ) -> None:
        super().__init__()
        self._write_end = write_end
        self._place = place
        self._before: dict[int, Any] = {}
        self._in_loop = False
        # The last signal that the main thread has seen, and how many the other one has.
        self._signum: int | None = None
        self._received = 0
        # Held by the thread that writes the end, and never let go.
        self._end = threading.Lock()
        self._is_stopping = threading.Event()
        self._is_over = threading.Event()

    def __enter__(self) -> StopOnSignal:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._on_signal)
        self._read_end, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._fd_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        signal.set_wakeup_fd(self._fd_before)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        os.close(self._write_fd)
        self._watcher.join()
        os.close(self._read_end)

    @property
    def is_urgent(self) -> bool:
        """Whether more than one signal came: whoever sent them wants no more waiting."""
        return self._received > 1

    # In the main thread.

    def end(self, error: BaseException | None) -> None:
        """Calls `write_end`, unless the other thread does so and ends the process."""
        if not self._end.acquire(blocking=False):
            threading.Event().wait()
        self._is_stopping.set()
        self._write_end(error)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_second = self._signum is not None or self._received > 1
        self._signum = signum
        if not self._end.locked() and (is_second or not self._in_loop):
            self._raise(signum)

    def _raise(self, signum: int) -> None:
        self._in_loop = False
        self._is_stopping.set()
        raise RunInterrupted(signum)

    def _raise_if_asked(self) -> None:
        if self._signum is not None:
            self._raise(self._signum)

    def on_train_begin(self, logs: Any = None) -> None:
        """From here on a signal waits for the end of the step."""
        self._in_loop = True

    def on_train_end(self, logs: Any = None) -> None:
        """From here on a signal raises at once again."""
        self._in_loop = False
        self._raise_if_asked()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops here if a signal came."""
        self._raise_if_asked()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops here if a signal came."""
        self._raise_if_asked()

    # In the other thread.

    def _watch(self) -> None:
        while byte := os.read(self._read_end, 1):
            if byte[0] not in self._before:
                continue
            self._received += 1
            if self._received > 1:
                self._end_at_once(byte[0])
            elif self._end.locked():
                _tell("Stopping when all is written ...; Ctrl-C again stops at once.")
            else:
                when = "after this step" if self._in_loop else "as soon as it can"
                _tell(f"Stopping {when} ...; Ctrl-C again stops at once.")

    def _end_at_once(self, signum: int) -> None:
        stopped = RunInterrupted(signum)
        if not self._is_stopping.wait(_PATIENCE) and self._end.acquire(blocking=False):
            # A device that answers no more may hold this up.
            writing = threading.Thread(
                target=self._write_without_main, args=(stopped,), daemon=True
            )
            writing.start()
            writing.join(_FILES)
        elif self._is_over.wait(_FILES):
            return
        _tell(f"Interrupted: {stopped}, at once. What was measured is in {self._place}.")
        os._exit(128 + signum)

    def _write_without_main(self, stopped: RunInterrupted) -> None:
        try:
            self._write_end(stopped)
            sys.stdout.flush()
        except Exception as error:
            _tell(f"Not all could be written: {type(error).__name__}: {error}")


def _tell(line: str) -> None:
    # Not print: the main thread may hold the lock of what it writes to.
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
