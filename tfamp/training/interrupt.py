"""Ctrl-C and SIGTERM end a run at the next step, with its rows written."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import keras


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
    half written; outside, and at a second signal, it is raised at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._signum: int | None = None
        self._in_loop = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_second = self._signum is not None
        self._signum = signum
        if is_second or not self._in_loop:
            raise RunInterrupted(signum)

    def _raise_if_asked(self) -> None:
        if self._signum is not None:
            self._in_loop = False
            raise RunInterrupted(self._signum)

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
