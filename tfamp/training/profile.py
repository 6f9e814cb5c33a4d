"""A trace of some steps for TensorBoard's profile plugin."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import keras
import tensorflow as tf

from tfamp.run.command import has_scripts, typed
from tfamp.telemetry.callback import PrecisionTelemetry

_PLUGIN = "tensorboard-plugin-profile"


def how_to_look(logdir: str) -> str:
    """The command that shows a trace in TensorBoard, whose profile tab is a plugin of its own."""
    command = typed("tensorboard", logdir)
    try:
        importlib.metadata.distribution(_PLUGIN)
    except importlib.metadata.PackageNotFoundError:
        if has_scripts():
            return f"TFAMP_EXTRAS=profile {command}"
        return f"python -m pip install {_PLUGIN} && {command}"
    return command


class ProfileSteps(keras.callbacks.Callback):
    """Traces the executions that hold steps `first` to `last`, counted from 1 over the run.

    Args:
        telemetry: What counts the steps; it must come before this in the callbacks. The trace
            lands beside its events, in plugins/profile.
        first: First step.
        last: Last step, inclusive.
    """

    def __init__(self, telemetry: PrecisionTelemetry, first: int, last: int) -> None:
        super().__init__()
        self._telemetry = telemetry
        self._logdir = str(telemetry.directory.path / "train")
        self.first = first
        self._last = last
        self._is_tracing = False
        self.has_traced = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the trace if this execution reaches `first`."""
        reached = self._telemetry.step + self.model.steps_per_execution
        if not self.has_traced and reached >= self.first:
            tf.profiler.experimental.start(self._logdir)
            self._is_tracing = self.has_traced = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Ends the trace once `last` is done and the device has caught up."""
        if self._is_tracing and self._telemetry.step >= self._last:
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
