"""A run as a whole: from a config to a finished run directory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfamp.models import user_files
from tfamp.precision import computes
from tfamp.precision import policy as policy_lib
from tfamp.precision.moving_averages import kept_moving_averages
from tfamp.run import provenance
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.errors import ExitCalled, InputError
from tfamp.run.result import ComputesIn, Figures, RunResult, Status
from tfamp.telemetry import memory
from tfamp.telemetry.callback import PrecisionTelemetry
from tfamp.telemetry.non_finite import NonFiniteRun
from tfamp.telemetry.progress import ProgressBar
from tfamp.telemetry.stop_on_non_finite import StopOnNonFinite
from tfamp.training import description
from tfamp.training import saving as saving_lib
from tfamp.training.build import Run, build
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop
from tfamp.training.interrupt import RunInterrupted, StopOnSignal
from tfamp.training.profile import ProfileSteps
from tfamp.training.saving import Saving


def train(
    config: Config, command_line: Sequence[str] = (), say: Callable[[str], None] = print
) -> RunResult:
    """Trains as the config says and writes the run directory.

    Args:
        config: A resolved config.
        command_line: What the user typed, for config.json.
        say: Where lines for the user go.

    Returns:
        The result, as in result.json.

    Raises:
        InputError: The config cannot be run; nothing was written.
        RunInterrupted: A signal ended the run; result.json says so.
        NonFiniteRun: Weights or losses were NaN or infinite, or no step was applied; likewise.
        ExitCalled: The user's code called `sys.exit`; result.json says so.
        Exception: Whatever made the run fail; result.json says so.
    """
    directory = RunDirectory(f"{config.logdir}/{config.run_name}", config.saved_names)
    directory.check(config.overwrite)
    run: Run | None = None
    telemetry: PrecisionTelemetry | None = None
    saving: Saving | None = None
    # As training ended, and again with the model.
    results: list[RunResult] = []

    def ended(error: BaseException | None) -> None:
        if run is None:
            directory.prepare(config.overwrite)
        counted = computes.computes_in(run.model) if run else None
        settled = run.config if run else config
        results.append(_finish(settled, counted, telemetry, saving, directory, error))

    def save_model() -> None:
        if saving is not None and results:
            if stop.is_urgent:
                saving.leave_model_out()
            results.append(_save_model(saving, directory, results[-1], say))

    with contextlib.ExitStack() as stack:
        # First in, last out: Ctrl-C is then Python's own again, for the model to be left out.
        stack.callback(save_model)
        stop = stack.enter_context(StopOnSignal(ended, str(directory.path)))
        try:
            memory.grow_gpu_memory()
            stack.enter_context(policy_lib.tf32(config.tf32))
            stack.enter_context(policy_lib.global_policy(config.policy))
            if config.deterministic:
                tf.config.experimental.enable_op_determinism()
                # keras-cv's layers ask for it; what they draw comes from seeds of tfamp's own.
                tf.random.set_global_generator(tf.random.Generator.from_seed(config.seed))
            say(f"Building {config.model} and loading {config.dataset} ...")
            # Before it is imported: what was trained, should someone edit the file meanwhile.
            model_files = user_files.sha256(config.model)
            run = build(config)
            replaced = directory.prepare(config.overwrite)
            if replaced is not None:
                say(f"What an earlier run left in {directory.path} is in {replaced}.")
            directory.write_config(description.config_record(run, command_line, model_files))
            description.say_what(run, say)
            telemetry = PrecisionTelemetry(
                directory.path,
                log_every=config.log_every,
                batch_size=config.batch_size,
                owns_result=False,
            )
            telemetry.recorder.files.hparams = description.hparams(run)
            telemetry.non_finite.stops = config.stop_on_non_finite
            saving = Saving(config, directory, run.model)
            _loop(run, telemetry, saving, stop)
            steps = run.optimizer.steps_attempted, run.optimizer.steps_applied
            why_no_success = telemetry.non_finite.verdict(*steps)
            if why_no_success:
                raise NonFiniteRun(why_no_success)
        except InputError:
            raise
        except SystemExit as call:
            called = ExitCalled(call)
            stop.end(called)
            raise called from call
        except BaseException as error:
            stop.end(error)
            raise
        stop.end(None)
    return results[-1]


def _loop(run: Run, telemetry: PrecisionTelemetry, saving: Saving, stop: StopOnSignal) -> None:
    config, model, data = run.config, run.model, run.data
    steps = config.steps_per_epoch or data.steps_per_epoch
    # The telemetry first: it counts the steps, and the others ask it.
    callbacks: list[keras.callbacks.Callback] = [telemetry]
    if config.profile_steps:
        callbacks.append(ProfileSteps(telemetry, *config.profile_steps))
    callbacks.append(StopOnNonFinite(telemetry, config.stop_on_non_finite))
    callbacks += [ProgressBar(telemetry, config.epochs, steps), *saving.callbacks, stop]
    listed = DeviceCallbackList(
        callbacks, add_history=True, model=model, epochs=config.epochs, steps=steps, verbose=0
    )
    if config.loop == "custom":
        CustomLoop(model).run(data.train, data.validation, config.epochs, steps, listed)
    else:
        with kept_moving_averages(model):
            model.fit(
                data.train,
                validation_data=data.validation,
                epochs=config.epochs,
                steps_per_epoch=steps,
                callbacks=listed,
                shuffle=False,
                verbose=0,
            )


def _finish(
    config: Config,
    computes_in: ComputesIn | None,
    telemetry: PrecisionTelemetry | None,
    saving: Saving | None,
    directory: RunDirectory,
    error: BaseException | None,
) -> RunResult:
    status: Status = "completed"
    if error is not None:
        was_stopped = isinstance(error, (RunInterrupted, KeyboardInterrupt))
        status = "interrupted" if was_stopped else "failed"
    device = memory.training_device()
    result = RunResult(
        status=status,
        error=_error_text(error) if status == "failed" else None,
        policy=config.policy,
        loop=config.loop,
        model=config.model,
        dataset=config.dataset,
        seed=config.seed,
        tf32=policy_lib.computes_in_tf32(),
        jit_compile=config.jit_compile,
        computes_in=computes_in,
        device=f"{device} ({memory.device_name(device)})",
        versions=provenance.versions(),
        saved=saving.saved if saving else None,
    )
    if error is not None:
        # First what is certain: after a failure the device may answer no more.
        directory.write_result(result)
    is_written = error is not None
    try:
        if telemetry is not None:
            figures = _end_of_rows(telemetry, status, error)
            result = dataclasses.replace(result, figures=figures)
        directory.write_result(result)
        is_written = True
    finally:
        if saving is not None:
            saving.save_weights()
            result = dataclasses.replace(result, saved=saving.saved)
            if is_written:
                directory.write_result(result)
    return result


def _end_of_rows(
    telemetry: PrecisionTelemetry, status: str, error: BaseException | None
) -> Figures:
    try:
        telemetry.event(status, {"error": _error_text(error)} if error else None)
    finally:
        telemetry.close()
    return telemetry.result()


def _save_model(
    saving: Saving, directory: RunDirectory, result: RunResult, say: Callable[[str], None]
) -> RunResult:
    """Saves the model once all else is on disk: result.json is true also if this is cut short."""
    saving.save_model(say)
    result = dataclasses.replace(result, saved=saving.saved)
    try:
        directory.write_result(result)
    except OSError as error:
        say(f"{directory.result} does not tell of the model: {error}")
    if result.status != "completed":
        # A completed run ends with a summary, which has them.
        for line in saving_lib.lines(saving.saved, directory.path):
            say(line)
    return result


def _error_text(error: BaseException | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"
