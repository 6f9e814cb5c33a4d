"""A trace of some steps for TensorBoard's profile plugin."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import keras
import tensorflow as tf

from tfamp.run import commands

_PLUGIN = "tensorboard-plugin-profile"


def how_to_look(logdir: str) -> str:
    """The command that shows a trace in TensorBoard, whose profile tab is a plugin of its own."""
    command = commands.typed("tensorboard", logdir)
    try:
        importlib.metadata.distribution(_PLUGIN)
    except importlib.metadata.PackageNotFoundError:
        if commands.has_scripts():
            return f"TFAMP_EXTRAS=profile {command}"
        return f"python -m pip install {_PLUGIN} && {command}"
    return command


class ProfileSteps(keras.callbacks.Callback):
    """Traces the executions that hold steps `first` to `last`, counted from 1 over the run.

    Args:
        logdir: A run's event folder; the trace lands in its plugins/profile.
        first: First step.
        last: Last step, inclusive.
    """

    def __init__(self, logdir: str, first: int, last: int) -> None:
        super().__init__()
        self._logdir = logdir
        self.first = first
        self._last = last
        self._epoch_start = 0
        self._done = 0
        self._is_tracing = False
        self.has_traced = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes how many steps went before."""
        self._epoch_start = self._done

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the trace if this execution reaches `first`."""
        executes = self.model.steps_per_execution
        if not self.has_traced and self._epoch_start + batch + executes >= self.first:
            tf.profiler.experimental.start(self._logdir)
            self._is_tracing = self.has_traced = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Ends the trace once `last` is done and the device has caught up."""
        self._done = self._epoch_start + batch + 1
        if self._is_tracing and self._done >= self._last:
            for value in (logs or {}).values():
                float(value)  # waits for the device
            self._stop()

    def on_train_end(self, logs: Any = None) -> None:
        """Ends a trace that is still open."""
        if self._is_tracing:
            self._stop()

    def _stop(self) -> None:
        self._is_tracing = False
        tf.profiler.experimental.stop()
