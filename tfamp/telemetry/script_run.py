"""A run in a script of the user's: its folder, config.json and result.json."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import sys
import traceback
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from tfamp.precision import policy as policy_lib
from tfamp.run import provenance
from tfamp.run.result import RunResult, Status
from tfamp.telemetry import memory, script_config
from tfamp.telemetry.recorder import Recorder

# The runs of this process, by folder: one of them may go on. Those that have not ended are told
# of the process's end, because Keras calls no callback when `fit` is left by an exception.
_RUNS: dict[Path, ScriptRun] = {}


class ScriptRun:
    """Writes what a run in a user's script is and what became of it.

    Args:
        recorder: The run's recorder.
        loop: `"fit"` or `"custom"`, a loop that the user wrote.
        overwrite: Whether a finished run in the folder may be replaced.
    """

    def __init__(self, recorder: Recorder, loop: str, overwrite: bool) -> None:
        self.recorder = recorder
        self._loop = loop
        self._overwrite = overwrite
        self._config: dict[str, Any] = {}
        self._subject: weakref.ref[Any] | None = None
        self._phase: dict[str, Any] | None = None
        self.is_running = False

    def of_process(self, subject: object) -> ScriptRun:
        """This run; or, if it has not begun, the one of this process that it goes on with.

        A run goes on where the same model trains on into the same folder, with whatever callback.

        Args:
            subject: What is trained: the model, or an optimizer where no model is known.
        """
        known = _RUNS.get(self.recorder.directory.path.resolve())
        has_begun = self._subject is not None or self.recorder.step > 0
        if not has_begun and known is not None and known._subject is not None:
            return known if known._subject() is subject else self
        return self

    def begin(
        self,
        subject: object,
        model: keras.Model | None,
        optimizers: Mapping[str, keras.optimizers.Optimizer],
        facts: Mapping[str, Any],
    ) -> None:
        """Prepares the folder and says what runs; or goes on with the run's next phase.

        A run whose figures were restored goes on in its folder as it is.

        Args:
            subject: As for `of_process`.
            model: The model, if it is known.
            optimizers: The optimizers by name.
            facts: What the loop knows besides, under the names of config.json.

        Raises:
            InputError: The folder holds a finished run, or cannot be written.
        """
        directory = self.recorder.directory
        config = script_config.config(model, optimizers) | {
            "loop": self._loop,
            "batch_size": self.recorder.batch_size,
            "log_every": self.recorder.log_every,
            **facts,
        }
        is_first, has_steps = self._subject is None, self.recorder.step > 0
        if is_first and not has_steps:
            replaced = directory.prepare(self._overwrite)
            if replaced is not None:
                print(f"What an earlier run left in {directory.path} is in {replaced}.")
            directory.write_config(script_config.record(config, model, optimizers))
            self.recorder.files.hparams = script_config.hparams(config)
        else:
            # What an earlier phase or process said of the run's end no longer holds.
            directory.result.unlink(missing_ok=True)
        if is_first:
            self._config = config
            if not _RUNS:
                atexit.register(_end_all)
            _RUNS[directory.path.resolve()] = self
        is_later_phase = has_steps and not is_first
        self._phase = script_config.phase(config, model) if is_later_phase else None
        self._subject = weakref.ref(subject)
        self.is_running = True

    def begun(self) -> None:
        """Notes a later phase in the rows, once they are open."""
        if self._phase is not None:
            self.recorder.event("phase", self._phase)

    def end(self, error: BaseException | None = None, is_whole: bool = True) -> None:
        """Writes the last rows and result.json; a later phase may go on.

        Args:
            error: What ended the run, if something did.
            is_whole: Whether training came to its end where there was no error.
        """
        if not self.is_running:
            return
        self.is_running = False
        status: Status = "completed" if is_whole else "interrupted"
        if error is not None:
            asked = isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
            status = "interrupted" if asked else "failed"
        text = f"{type(error).__name__}: {error}" if status == "failed" else None
        result = self._outcome(status, text)
        if status != "completed":
            # First what is certain: after a failure the device may answer no more.
            self.recorder.directory.write_result(result)
        try:
            self.recorder.event(status, {"error": text} if text else None)
        finally:
            self.recorder.close()
        figures = self.recorder.result()
        result = dataclasses.replace(result, figures=figures)
        why_no_success = self.recorder.non_finite.verdict(
            figures.steps_attempted, figures.steps_applied
        )
        if status == "completed" and why_no_success:
            self.recorder.non_finite.say(why_no_success)
            result = dataclasses.replace(result, status="failed", error=why_no_success)
        self.recorder.directory.write_result(result)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """An exception inside ends the run and goes on its way."""
        try:
            yield
        except BaseException as error:
            self.end(error)
            raise

    def _outcome(self, status: Status, error: str | None) -> RunResult:
        names = ("policy", "loop", "model", "dataset", "seed", "jit_compile")
        told: dict[str, Any] = {name: self._config.get(name) for name in names}
        return RunResult(
            status=status,
            error=error,
            **told,
            tf32=policy_lib.computes_in_tf32(),
            device=memory.described_device(),
            versions=provenance.versions(),
        )

    def _end_with_process(self) -> None:
        error = getattr(sys, "last_value", None)
        subject = self._subject() if self._subject is not None else None
        if error is not None and _went_through_fit(error, subject):
            self.end(error)
        else:
            # What left `fit` was caught, or was `sys.exit`.
            self.end(is_whole=False)


def _end_all() -> None:
    for run in _RUNS.values():
        run._end_with_process()


def _went_through_fit(error: BaseException, model: object) -> bool:
    # Keras cuts its own frames out of a traceback, all but the handler that does so.
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name in ("fit", "error_handler"):
            values = frame.f_locals
            if model is not None and model in (values.get("self"), *values.get("args", ())[:1]):
                return True
    return False
