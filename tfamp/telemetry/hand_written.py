"""Telemetry for a loop without `fit`, which the user wrote by hand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import keras
import numpy as np

from tfamp.precision.silent_float16 import warn_if_unscaled
from tfamp.run import records
from tfamp.run.directory import RunDirectory
from tfamp.telemetry.named_optimizers import named_optimizers
from tfamp.telemetry.recorder import Recorder
from tfamp.telemetry.script_run import ScriptRun

_VALIDATION = ("validation_", "val_")


class LoopTelemetry:
    """What `tfamp.telemetry` returns; use it in a `with` statement.

    See `telemetry` for the arguments.
    """

    def __init__(
        self,
        run_directory: str | os.PathLike[str],
        *,
        model: keras.Model | None,
        optimizers: dict[str, keras.optimizers.Optimizer],
        batch_size: int | None,
        log_every: int,
        overwrite: bool,
    ) -> None:
        directory = RunDirectory(run_directory, named_by=("run_directory",))
        self._run = ScriptRun(Recorder(directory, log_every, batch_size), "custom", overwrite)
        self._model = model
        self._optimizers = optimizers
        self._metrics = GivenMetrics()

    def __enter__(self) -> LoopTelemetry:
        """Prepares the folder and opens its files.

        Raises:
            ValueError: The folder cannot be written, holds what no run wrote or, with
                `overwrite=False`, a completed run.
        """
        optimizer = next(iter(self._optimizers.values()))
        subject = self._model if self._model is not None else optimizer
        self._run = self._run.of_process(subject)
        self._recorder = self._run.recorder
        self._run.begin(subject, self._model, self._optimizers, {})
        self._recorder.begin(self._optimizers, self._metrics)
        self._run.begun()
        if self._model is not None:
            warn_if_unscaled(self._model, self._optimizers.values())
        self._begin_epoch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is left and result.json: completed, or what ended the loop.

        Steps since the last `epoch` are an epoch of their own.
        """
        with self._run.told():
            if error is None and self._recorder.step > self._recorder.figures.epoch.start:
                self.epoch()
            elif self._metrics.are_waiting:
                self._recorder.mark()
        self._run.end(error)

    def step(self, loss: Any = None, /, **figures: Any) -> None:
        """Counts a step; every `log_every` steps reads what the device has kept.

        Args:
            loss: The step's loss, one number, before scaling: a tensor is left on the device
                until it is read. May be left out where a `tfamp.LossScaleOptimizer` scaled it.
            **figures: Other figures of the step by name, such as `accuracy`, each one number.

        Raises:
            LossScaleCollapse: Loss scaling has given up.
            ValueError: A figure is not one number.
        """
        if loss is not None:
            figures["loss"] = loss
        for name, value in figures.items():
            _check_number(name, value)
        with self._run.told():
            step = self._recorder.step + 1
            self._metrics.give(step, figures)
            self._recorder.count(step)
            self._last_step_at = self._recorder.clock.now()

    def epoch(self, **figures: Any) -> None:
        """Ends an epoch, after its evaluation if there is one.

        The steps since the last mark are then not timed: an evaluation may have come between.

        Args:
            **figures: The epoch's figures by name; those that begin with `validation_` or `val_`
                are of validation, such as `validation_loss` and `validation_accuracy`.

        Raises:
            LossScaleCollapse: Loss scaling has given up.
            ValueError: A figure is not one number.
        """
        named = {}
        for name, value in figures.items():
            _check_number(name, value)
            prefix = next((p for p in _VALIDATION if name.startswith(p)), "")
            room = "validation" if prefix else "train"
            named[records.reported(room, name[len(prefix) :])] = float(value)
        with self._run.told():
            self._recorder.end_epoch_training(ended_at=self._last_step_at)
            self._recorder.end_epoch(self._metrics.end_epoch() | named)
            self._begin_epoch()

    @property
    def directory(self) -> RunDirectory:
        """The run's folder."""
        return self._run.recorder.directory

    def _begin_epoch(self) -> None:
        self._recorder.begin_epoch(self._recorder.figures.next_epoch)
        self._last_step_at = self._recorder.clock.now()


class GivenMetrics:
    """The figures that a loop hands in for its steps, on the device until they are read."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[str, Any]] = {}
        self._sums: dict[str, tuple[float, int]] = {}

    @property
    def are_waiting(self) -> bool:
        """Whether some were not read yet."""
        return bool(self._waiting)

    def give(self, step: int, figures: Mapping[str, Any]) -> None:
        """Takes a step's figures by the loop's names."""
        self._waiting[step] = {records.reported("train", n): v for n, v in figures.items()}

    def wait(self) -> None:
        """Waits for the device to have done all steps so far."""
        for figures in self._waiting.values():
            for value in figures.values():
                np.asarray(value)

    def take(self, has_losses: bool) -> dict[int, dict[str, float]]:
        """The figures of the steps since the last mark, by step; waits for the device.

        Args:
            has_losses: Of no account: the loop's own loss is the one that was asked for.
        """
        taken = {
            step: {name: float(value) for name, value in figures.items()}
            for step, figures in self._waiting.items()
        }
        self._waiting.clear()
        for figures in taken.values():
            for name, value in figures.items():
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)
        return taken

    def end_epoch(self) -> dict[str, float]:
        """The means of the epoch's steps."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means


def telemetry(
    run_directory: str | os.PathLike[str],
    *,
    model: keras.Model | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    optimizers: Iterable[keras.optimizers.Optimizer]
    | Mapping[str, keras.optimizers.Optimizer]
    | None = None,
    batch_size: int | None = None,
    log_every: int = 10,
    overwrite: bool = True,
) -> LoopTelemetry:
    """Writes a run directory from a loop of your own, as `PrecisionTelemetry` does from `fit`.

    >>> with tfamp.telemetry("runs/mine", model=model, optimizer=optimizer) as t:
    ...     for epoch in range(3):
    ...         for x, y in batches:
    ...             t.step(train_step(x, y))
    ...         t.epoch(validation_loss=evaluate())

    It never sees a batch, so it has no `underflow_every` as `PrecisionTelemetry` has.

    An exception inside is written to result.json, as `failed` or `interrupted`, and goes on.

    Args:
        run_directory: The run's own folder. What an earlier run left there is moved to a folder
            `replaced-<UTC>` in it.
        model: What is trained, for config.json and a warning of float16 that nothing scales.
        optimizer: What trains it; the model's own if None.
        optimizers: In its place several, as a list or as a dict by the names that their figures
            shall have.
        batch_size: Examples a step, for the throughput; None leaves it out.
        log_every: Steps between two reads from the device.
        overwrite: Whether a completed run in the folder may be moved too; False refuses it.

    Raises:
        ValueError: `log_every` is below 1, both `optimizer` and `optimizers` are given, or there
            is no optimizer.
    """
    if log_every < 1:
        raise ValueError(f"log_every={log_every}: it must be 1 or more.")
    if optimizer is not None and optimizers is not None:
        raise ValueError("optimizer and optimizers were both given. Pass one of the two.")
    if optimizer is not None:
        optimizers = [optimizer]
    named = named_optimizers(model, optimizers)
    if not named:
        raise ValueError(
            "There is no optimizer to read. Pass optimizer=, optimizers=, or a compiled model."
        )
    return LoopTelemetry(
        run_directory,
        model=model,
        optimizers=named,
        batch_size=batch_size,
        log_every=log_every,
        overwrite=overwrite,
    )


def _check_number(name: str, value: Any) -> None:
    shape = tuple(np.shape(value) if getattr(value, "shape", None) is None else value.shape)
    if shape:
        raise ValueError(
            f"{name} has the shape {shape}: it must be one number. Pass its mean, such as "
            f"tf.reduce_mean({name})."
        )
