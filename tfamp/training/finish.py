"""How a run ends: result.json, the last rows, the weights and the model, however far it came."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tfamp.precision import computes
from tfamp.precision import policy as policy_lib
from tfamp.run import provenance
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.result import Figures, RunResult, Status
from tfamp.telemetry import memory
from tfamp.telemetry.callback import PrecisionTelemetry
from tfamp.training import saving as saving_lib
from tfamp.training.build import BuiltRun
from tfamp.training.interrupt import RunInterrupted
from tfamp.training.saving import Saving


class Finish:
    """Writes the end of a run, of as much of it as there is by then.

    Attributes:
        run: The run, once it is built; its directory is then prepared.
        telemetry: What holds its figures, once it is about to train.
        saving: What saves its weights and model, likewise.
        result: How it ended; None before.

    Args:
        config: What was asked for; what was decided is the run's.
        directory: The run's folder.
        say: Where lines for the user go.
    """

    def __init__(self, config: Config, directory: RunDirectory, say: Callable[[str], None]) -> None:
        self._asked = config
        self._directory = directory
        self._say = say
        self.run: BuiltRun | None = None
        self.telemetry: PrecisionTelemetry | None = None
        self.saving: Saving | None = None
        self.result: RunResult | None = None

    def write(self, error: BaseException | None) -> None:
        """Writes result.json, the last rows and the last weights.

        Args:
            error: What ended the run, if it did not come to its end.
        """
        if self.run is None:
            self._directory.prepare(self._asked.overwrite)
        result = self._outcome(error)
        if error is not None:
            # First what is certain: after a failure the device may answer no more.
            self._directory.write_result(result)
        is_written = error is not None
        try:
            if self.telemetry is not None:
                figures = self._with_auto(_end_of_rows(self.telemetry, result.status, error))
                result = dataclasses.replace(result, figures=figures)
            self._directory.write_result(result)
            is_written = True
        finally:
            if self.saving is not None:
                self.saving.save_weights()
                result = dataclasses.replace(result, saved=self.saving.saved)
                if is_written:
                    self._directory.write_result(result)
        self.result = result

    def save_model(self, is_urgent: bool) -> None:
        """Saves the model once all else is on disk: result.json is true also if this is cut short.

        Args:
            is_urgent: Whether the user has no time for it.
        """
        if self.saving is None or self.result is None:
            return
        if is_urgent:
            self.saving.leave_model_out()
        self.saving.save_model(self._say)
        self.result = dataclasses.replace(self.result, saved=self.saving.saved)
        try:
            self._directory.write_result(self.result)
        except OSError as error:
            self._say(f"{self._directory.result} does not tell of the model: {error}")
        if self.result.status != "completed":
            # A completed run ends with a summary, which has them.
            for line in saving_lib.lines(self.saving.saved, self._directory.path):
                self._say(line)

    def _with_auto(self, figures: Figures) -> Figures:
        auto = None if self.run is None else self.run.auto_scale
        if auto is None or figures.loss_scale is None:
            return figures
        return dataclasses.replace(figures, loss_scale=figures.loss_scale.with_auto(auto))

    def _outcome(self, error: BaseException | None) -> RunResult:
        config = self._asked if self.run is None else self.run.config
        status: Status = "completed"
        if error is not None:
            was_stopped = isinstance(error, (RunInterrupted, KeyboardInterrupt))
            status = "interrupted" if was_stopped else "failed"
        return RunResult(
            status=status,
            error=_text(error) if status == "failed" else None,
            policy=config.policy,
            loop=config.loop,
            model=config.model,
            dataset=config.dataset,
            seed=config.seed,
            tf32=policy_lib.computes_in_tf32(),
            jit_compile=config.jit_compile,
            computes_in=computes.computes_in(self.run.model) if self.run else None,
            device=memory.described_device(),
            versions=provenance.versions(),
            saved=self.saving.saved if self.saving else None,
        )


def _end_of_rows(
    telemetry: PrecisionTelemetry, status: str, error: BaseException | None
) -> Figures:
    try:
        telemetry.event(status, {"error": _text(error)} if error else None)
    finally:
        telemetry.close()
    return telemetry.result()


def _text(error: BaseException | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"
