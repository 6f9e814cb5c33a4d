"""The telemetry callback: what precision did, step by step, without waiting for each step.

Keras's hooks and what others ask; `recorder` does what they say.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import keras

from tfamp.precision.silent_float16 import warn_if_unscaled
from tfamp.precision.underflow import UnderflowMeter
from tfamp.run.directory import RunDirectory
from tfamp.run.result import Figures
from tfamp.telemetry.keras_metrics import KerasMetrics, epoch_figures
from tfamp.telemetry.metered_fit import MeteredFit
from tfamp.telemetry.named_optimizers import named_optimizers
from tfamp.telemetry.non_finite import NonFiniteWatch
from tfamp.telemetry.recorder import Recorder
from tfamp.telemetry.script_run import ScriptRun


class PrecisionTelemetry(keras.callbacks.Callback):
    """Writes a run directory: rows for every step and epoch, TensorBoard events, a result.

    Drops into any `fit`. With `tfamp.LossScaleOptimizer` each step's loss, loss scale, skips and
    gradient norm are kept on the device and read every `log_every` steps. With another optimizer
    there is one row for each `log_every` steps with what Keras knows; of Keras's own loss scaling,
    which `compile("adam")` sets up under mixed_float16, it has the scale and the skips.

    >>> model.fit(x, y, callbacks=[tfamp.PrecisionTelemetry("runs/mine")])

    A later `fit` goes on with the run: with the same callback whatever the model, with another
    callback for the same folder if it is the same model. Steps and epochs count on.

    `result.json` says `completed` when `fit` ended. If an exception ended it, the callback writes
    `failed` or `interrupted` as the process ends, or at once where it is used as a context:

    >>> with tfamp.PrecisionTelemetry("runs/mine") as telemetry:
    ...     model.fit(x, y, callbacks=[telemetry])

    Args:
        run_directory: The run's own folder. What an earlier run left there is moved to a folder
            `replaced-<UTC>` in it.
        optimizers: Optimizers to report on, where they are not `model.optimizer` alone: a list,
            or a dict by the names that their figures shall have. If None, those that the model
            holds as attributes are found and have the attributes' names.
        log_every: Steps between two reads from the device.
        batch_size: Examples a step, for the throughput; None leaves it out.
        underflow_every: Each so many steps, count what float16 loses of each layer's gradient at
            the loss scale, and its exponents: rows of kind `underflow`, TensorBoard's scalars and
            histograms. It takes two steps' time, and changes nothing of the training. None: never.
        underflow_of: `"weights"`, or `"activations"`: gradients with respect to layers' outputs.
        overwrite: Whether a completed run there may be moved too; False refuses to train.
        owns_result: Whether this callback writes config.json and result.json and prepares the
            folder; tfamp's trainer does so itself, with more in them.

    Raises:
        ValueError: `log_every` or `underflow_every` is below 1, or `underflow_of` is neither; or,
            when training begins, the folder cannot be written,
            holds what no run wrote or, with `overwrite=False`, a completed run; or `optimizers`
            holds something else.
    """

    def __init__(
        self,
        run_directory: str | os.PathLike[str],
        *,
        optimizers: Iterable[keras.optimizers.Optimizer]
        | Mapping[str, keras.optimizers.Optimizer]
        | None = None,
        log_every: int = 10,
        batch_size: int | None = None,
        underflow_every: int | None = None,
        underflow_of: str = "weights",
        overwrite: bool = True,
        owns_result: bool = True,
    ) -> None:
        super().__init__()
        if log_every < 1:
            raise ValueError(f"log_every={log_every}: it must be 1 or more.")
        directory = RunDirectory(run_directory, named_by=("run_directory",))
        self.recorder = Recorder(directory, log_every, batch_size)
        self._run = ScriptRun(self.recorder, "fit", overwrite) if owns_result else None
        self._optimizers = optimizers
        self.underflow = (
            None if underflow_every is None else UnderflowMeter(underflow_every, underflow_of)
        )
        self._metered_fit: MeteredFit | None = None

    # Keras's hooks, in the order in which they are called.

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the files and warns of float16 that nothing scales."""
        optimizers = named_optimizers(self.model, self._optimizers)
        steps_per_execution = _steps_per_execution(self.model)
        if self._run:
            self._run = self._run.of_process(self.model)
            self.recorder = self._run.recorder
            asked = {"epochs": "epochs", "steps_per_epoch": "steps"}
            facts = {name: self.params.get(key) for name, key in asked.items()}
            self._run.begin(self.model, self.model, optimizers, facts)
        self._metrics = KerasMetrics(self.model, self.recorder.figures)
        self._begin_underflow(optimizers, steps_per_execution)
        self.recorder.begin(optimizers, self._metrics, steps_per_execution, self.underflow)
        if self._run:
            self._run.begun()
        # What `compile` sets up by itself trains nothing where the model brings its own.
        used = {name: each for name, each in optimizers.items() if name != "optimizer"}
        warn_if_unscaled(self.model, used.values())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the epoch's clock and its memory peak."""
        self.recorder.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Remembers where the call begins: it may take several steps."""
        self._step_before, self._first_batch = self.recorder.step, batch
        if self._metered_fit:
            self._metered_fit.expect()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts; at a mark reads what the device has kept and writes it down."""
        with self._told():
            # A last call with several steps counts those that it had no data for.
            batches = min(batch + 1, self.params.get("steps") or batch + 1)
            self._metrics.note(logs)
            self.recorder.count(self._step_before + batches - self._first_batch)

    def on_test_begin(self, logs: Any = None) -> None:
        """Ends the epoch's training before evaluation takes the device."""
        self._end_epoch_training()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the epoch's row."""
        self._end_epoch_training()
        self.recorder.end_epoch(epoch_figures(logs or {}))

    def on_train_end(self, logs: Any = None) -> None:
        """Writes the last rows and, in a script of the user's, the result."""
        self._end_underflow()
        if self._run:
            self._run.end()
        self.close()

    # As a context, where an exception shall be written down at once.

    def __enter__(self) -> PrecisionTelemetry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._run and error is not None:
            self._run.end(error)

    # What others ask.

    @property
    def directory(self) -> RunDirectory:
        """The run's folder."""
        return self.recorder.directory

    @property
    def step(self) -> int:
        """Steps that were given to the device so far."""
        return self.recorder.step

    @property
    def step_of_epoch(self) -> int:
        """Those of them that are of the epoch."""
        return self.recorder.step - self.recorder.figures.epoch.start

    @property
    def non_finite(self) -> NonFiniteWatch:
        """What was not finite so far."""
        return self.recorder.non_finite

    @property
    def last_row(self) -> dict[str, Any]:
        """The figures of the last step that was read; empty before the first."""
        return self.recorder.files.last_step_row

    @property
    def last_epoch(self) -> dict[str, Any]:
        """The figures of the last epoch; empty before its end."""
        return self.recorder.files.last_epoch_row

    def event(self, name: str, values: dict[str, Any] | None = None) -> None:
        """Writes an event row, after the rows of the steps before it."""
        self.recorder.event(name, values)

    def close(self) -> None:
        """Writes the steps that are still on the device and closes the files; safe to repeat."""
        self.recorder.close()

    def result(self) -> Figures:
        """The figures of the run so far, as in result.json; waits for the device."""
        return self.recorder.result()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs of the figures so far, as JSON can hold it."""
        return self.recorder.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was asked for, in the same folder; before training begins.

        Steps, epochs and all counts go on, and an epoch that had not ended goes on with the next
        call of `on_epoch_begin`. Model and optimizers must be as they were then.
        """
        self.recorder.restore(state)

    def _begin_underflow(
        self, optimizers: Mapping[str, keras.optimizers.Optimizer], steps_per_execution: int
    ) -> None:
        self._end_underflow()
        if self.underflow:
            steps = (self.recorder.step, self.recorder.log_every, steps_per_execution)
            self.underflow.begin(self.model, optimizers, *steps)
            # A loop without `fit` places the meter itself.
            if self.model.train_function is not None:
                self._metered_fit = MeteredFit(self.model, self.underflow)

    def _end_underflow(self) -> None:
        if self._metered_fit:
            self._metered_fit.restore()
            self._metered_fit = None

    def _end_epoch_training(self) -> None:
        with self._told():
            self.recorder.end_epoch_training()

    def _told(self) -> contextlib.AbstractContextManager[None]:
        return self._run.told() if self._run else contextlib.nullcontext()


def _steps_per_execution(model: keras.Model) -> int:
    steps = model.steps_per_execution
    if not isinstance(steps, int):
        raise ValueError(
            f"steps_per_execution={steps!r}: Keras 3 takes a whole number here. Set "
            "steps_per_execution=1, or how many steps one call shall run, in compile()."
        )
    return steps
