"""A run as a whole: it is built, it trains, and how it ended is written."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfamp.precision.moving_averages import kept_moving_averages
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.errors import ExitCalled, InputError
from tfamp.run.result import RunResult
from tfamp.run.run_config import RunConfig
from tfamp.telemetry.callback import PrecisionTelemetry
from tfamp.telemetry.non_finite import NonFiniteRun
from tfamp.telemetry.progress import ProgressBar
from tfamp.telemetry.stop_on_non_finite import StopOnNonFinite
from tfamp.training import auto_scale, description
from tfamp.training.auto_scale import Advise
from tfamp.training.build import BuiltRun, build, process_settings
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop
from tfamp.training.finish import Finish
from tfamp.training.interrupt import StopOnSignal
from tfamp.training.profile import ProfileSteps
from tfamp.training.saving import Saving


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run that came to its end.

    Attributes:
        built: What was built and is trained now.
        directory: Where it wrote.
        result: How it ended, as in result.json.
    """

    built: BuiltRun
    directory: RunDirectory
    result: RunResult


def train(
    config: Config,
    command_line: Sequence[str] = (),
    say: Callable[[str], None] = print,
    asked: Mapping[str, Any] | None = None,
    advise: Advise | None = None,
) -> TrainedRun:
    """Trains as the config says and writes the run directory.

    Args:
        config: A resolved config.
        command_line: What the user typed, for config.json.
        say: Where lines for the user go.
        asked: The settings that the user gave, for config.json; None where that is not known.
        advise: Says where the loss scale of a run with `loss_scale="auto"` starts.

    Raises:
        InputError: The config cannot be run; nothing was written.
        RunInterrupted: A signal ended the run; result.json says so.
        NonFiniteRun: Weights or losses were NaN or infinite, or no step was applied; likewise.
        ExitCalled: The user's code called `sys.exit`; result.json says so.
        Exception: Whatever made the run fail; result.json says so.
    """
    directory = RunDirectory(f"{config.logdir}/{config.run_name}", config.saved_names)
    directory.check(config.overwrite)
    finish = Finish(config, directory, say)
    with contextlib.ExitStack() as stack:
        # First in, last out: Ctrl-C is then Python's own again, for the model to be left out.
        stack.callback(lambda: finish.save_model(stop.is_urgent))
        stop = stack.enter_context(StopOnSignal(finish.write, str(directory.path)))
        try:
            stack.enter_context(process_settings(config))
            say(f"Building {config.model} and loading {config.dataset} ...")
            run = build(config)
            auto_scale.choose(run, advise, say)
            finish.run = run
            _begin(run, directory, description.config_record(run, command_line, asked), say)
            telemetry = finish.telemetry = _telemetry(run, directory)
            saving = finish.saving = Saving(run.config, directory, run.model)
            _train(run, telemetry, [*saving.callbacks, stop])
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
    return TrainedRun(run, directory, typing.cast(RunResult, finish.result))


def _begin(
    run: BuiltRun,
    directory: RunDirectory,
    record: RunConfig,
    say: Callable[[str], None],
) -> None:
    """Takes the folder, writes config.json and says what is about to be trained."""
    replaced = directory.prepare(run.config.overwrite)
    if replaced is not None:
        say(f"What an earlier run left in {directory.path} is in {replaced}.")
    directory.write_config(record)
    description.say_what(run, say)


def _telemetry(run: BuiltRun, directory: RunDirectory) -> PrecisionTelemetry:
    telemetry = PrecisionTelemetry(
        directory.path,
        log_every=run.config.log_every,
        batch_size=run.config.batch_size,
        underflow_every=run.config.underflow_every,
        underflow_of=run.config.underflow_of,
        owns_result=False,
    )
    telemetry.recorder.files.hparams = description.hparams(run)
    telemetry.non_finite.stops = run.config.stop_on_non_finite
    return telemetry


def _train(
    run: BuiltRun, telemetry: PrecisionTelemetry, last: Sequence[keras.callbacks.Callback]
) -> None:
    """Trains in the loop that was chosen.

    Args:
        run: The run.
        telemetry: Comes first among the callbacks: it counts the steps, and the others ask it.
        last: The callbacks that come last, in their order.

    Raises:
        NonFiniteRun: It came to its end and is no success.
    """
    config, model, data = run.config, run.model, run.data
    callbacks: list[keras.callbacks.Callback] = [telemetry]
    if config.profile_steps:
        callbacks.append(ProfileSteps(telemetry, *config.profile_steps))
    callbacks.append(StopOnNonFinite(telemetry, config.stop_on_non_finite))
    callbacks += [ProgressBar(telemetry, config.epochs, run.steps_per_epoch), *last]
    listed = DeviceCallbackList(
        callbacks,
        add_history=True,
        model=model,
        epochs=config.epochs,
        steps=run.steps_per_epoch,
        verbose=0,
    )
    if config.loop == "custom":
        CustomLoop(model, telemetry.underflow).run(
            data.train, data.validation, config.epochs, run.steps_per_epoch, listed
        )
    else:
        with kept_moving_averages(model):
            model.fit(
                data.train,
                validation_data=data.validation,
                epochs=config.epochs,
                steps_per_epoch=run.steps_per_epoch,
                callbacks=listed,
                shuffle=False,
                verbose=0,
            )
    why_no_success = telemetry.non_finite.verdict(
        run.optimizer.steps_attempted, run.optimizer.steps_applied
    )
    if why_no_success:
        raise NonFiniteRun(why_no_success)
