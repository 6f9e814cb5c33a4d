"""Trains a ResNet or a ViT under a precision policy and logs what it did.

scripts/train.sh [FLAG ...], or python -m tfamp.train where tfamp is installed.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from typing import TYPE_CHECKING

from tfamp.run import command, records
from tfamp.run import flags as run_flags
from tfamp.run.command import Command, Ended, Given, Option
from tfamp.run.config import Config, declarations
from tfamp.run.errors import ExitCalled, InputError
from tfamp.run.result import AutoScale, Figures, LossScale, RunResult
from tfamp.training import startup

if TYPE_CHECKING:
    from tfamp.training.build import BuiltRun


def _train(given: Given) -> int:
    config = run_flags.config_from_flags(given.flags)
    _check_names(config)
    command.quiet_libraries()
    with command.ctrl_c_ends("Interrupted while TensorFlow was loaded: nothing was run."):
        startup.import_tensorflow(float16="float16" in config.policy)

        from tfamp.precision.collapse import LossScaleCollapse
        from tfamp.telemetry.non_finite import NonFiniteRun
        from tfamp.training import trainer
        from tfamp.training.interrupt import RunInterrupted

    place = os.path.join(config.logdir, config.run_name or "")
    measured = f"What was measured is in {place}."
    try:
        trained = trainer.train(
            config,
            command_line=[sys.argv[0], *given.arguments],
            asked=run_flags.asked(given.flags),
            advise=advised_scale,
        )
    except InputError:
        raise
    except RunInterrupted as stopped:
        raise command.stopped(stopped.signum, f"Interrupted: {stopped}. {measured}") from None
    except KeyboardInterrupt:
        raise command.stopped(signal.SIGINT, f"Interrupted. {measured}") from None
    except ExitCalled as called:
        raise Ended(
            command.FAILED,
            f"The run failed: {called}, by code that --model={config.model} runs. Raise an "
            f"exception there instead. {place}/result.json says so too.",
        ) from None
    except (LossScaleCollapse, NonFiniteRun) as error:
        said = f"The run failed. {error}\nThe rows are in {place}."
        raise Ended(command.FAILED, said) from None
    except Exception as error:
        said = f"The run failed; the error is in {place}/result.json too."
        raise Ended(command.FAILED, said, error) from None
    print(summary(trained.result, place))
    return command.DONE


def advised_scale(run: BuiltRun) -> AutoScale:
    """Where the loss scale of a built run should start, as its first batch tells."""
    from tfamp.diagnosis import advice
    from tfamp.diagnosis.probe import Probe
    from tfamp.telemetry.progress import Told

    config = run.config
    # An iterator of its own: the run begins with the same batch.
    batch = next(iter(run.data.train))
    probe = Probe(run.model, None, seed=config.seed, jit_compile=bool(config.jit_compile))
    with Told() as say, probe:
        found = advice.advise(run.model, probe, batch, say=say)
    initial = found.advice.initial_scale
    if found.window is None or initial is None:
        return AutoScale(
            initial=config.initial_loss_scale,
            window=None,
            why=f"The first batch has no window of safe scales: {found.why}. It starts at the "
            "default.",
        )
    return AutoScale(initial=initial, window=found.window)


def _check_names(config: Config) -> None:
    # Cheap checks first: a typing error should not cost TensorFlow's import.
    from tfamp.models import registry as model_registry

    model_registry.check_name(config.model)


COMMAND = Command(
    name="train",
    about=(__doc__ or "").splitlines()[0],
    options={
        name: Option(getattr(Config, name), each.kind, each.help)
        for name, each in declarations().items()
    },
    body=_train,
)
main = COMMAND.main


def summary(result: RunResult, place: str) -> str:
    """The lines that a completed run ends with."""
    from tfamp.training import saving

    lines = [f"{result.model} under {result.policy}, {result.loop} loop: completed"]
    figures = result.figures
    if figures is not None:
        lines += _figures(figures, result.device)
    if result.saved is not None:
        lines += saving.lines(result.saved, place)
    lines.append(f"  files                {place}")
    look = command.typed("tensorboard", os.path.dirname(place) or ".")
    lines.append(f"  look                 {look}")
    return "\n".join(lines)


def _figures(figures: Figures, device: str) -> list[str]:
    accuracy = figures.validation_accuracy
    shown = "not reported by the model" if accuracy is None else f"{100 * accuracy:.2f} %"
    lines = [f"  validation accuracy  {shown}"]
    loss = figures.validation_loss
    if loss is not None and not math.isfinite(loss):
        lines.append(f"  validation loss      {records.to_json_number(loss)}")
    broken = figures.non_finite
    if broken is not None:
        lines.append(
            f"  not finite           {broken.steps} steps, first the {broken.what} of step "
            f"{broken.first_step}"
        )
    epochs = figures.epoch_time_sec
    lines.append(f"  epoch time           {epochs[-1]:.1f} s (first {epochs[0]:.1f} s)")
    time, rate = figures.step_time_ms, figures.examples_per_sec
    if time is not None and rate is not None:
        lines.append(
            f"  step time            {time.median:.1f} ms median, {time.p95:.1f} ms p95, "
            f"{rate:.0f} examples/s"
        )
    if figures.device_peak_bytes is not None:
        name = device.split(" ")[0]
        lines.append(f"  {name} peak memory    {figures.device_peak_bytes / 2**20:.0f} MiB")
    scale = figures.loss_scale
    if scale is not None:
        mode = scale.mode if scale.auto is None else f"{scale.mode}, auto"
        lines.append(
            f"  loss scale           {scale.initial:.9g} -> {scale.final:.9g} "
            f"({mode}), {scale.skipped} of {figures.steps_attempted} steps skipped"
        )
        if scale.auto is not None:
            lines.append(f"  safe window          {_window(scale, scale.auto)}")
    return lines


def _window(scale: LossScale, auto: AutoScale) -> str:
    if auto.window is None:
        return f"none: {auto.why}"
    stayed = "stayed inside" if scale.stayed_in_window else "left it"
    return f"{auto.window}; the scale {stayed}: {scale.min:.9g} to {scale.max:.9g}"


if __name__ == "__main__":
    sys.exit(main())
