"""Trains a ResNet or a ViT under a precision policy and logs what it did.

scripts/train.sh [FLAG ...], or python -m tfamp.train where tfamp is installed.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from typing import Any

from absl import app, flags, logging

from tfamp.run import commands, records
from tfamp.run import flags as run_flags
from tfamp.run.errors import ExitCalled, InputError
from tfamp.run.result import Figures, RunResult
from tfamp.training import startup

flags.adopt_module_key_flags(run_flags)


def main(argv: list[str]) -> int:
    """Runs one training; see the module's flags.

    Returns:
        0 completed, 1 failed, 2 bad input, 128 + signal where a signal ended the run.
    """
    try:
        config = run_flags.config_from_flags()
        _check_names(config)
    except InputError as error:
        run_flags.exit_with_input_error(error)
    # TFDS tells at INFO of what it tried before an error that says it better.
    logging.set_verbosity(logging.WARNING)
    try:
        startup.import_tensorflow(float16="float16" in config.policy)

        from tfamp.precision.collapse import LossScaleCollapse
        from tfamp.telemetry.non_finite import NonFiniteRun
        from tfamp.training import trainer
        from tfamp.training.interrupt import RunInterrupted
    except KeyboardInterrupt:
        print("\nInterrupted while TensorFlow was loaded: nothing was run.", file=sys.stderr)
        return 128 + signal.SIGINT

    place = os.path.join(config.logdir, config.run_name or "")
    try:
        trained = trainer.train(config, command_line=sys.argv)
    except InputError as error:
        run_flags.exit_with_input_error(error)
    except RunInterrupted as stopped:
        print(f"\nInterrupted: {stopped}. What was measured is in {place}.", file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        print(f"\nInterrupted. What was measured is in {place}.", file=sys.stderr)
        return 128 + signal.SIGINT
    except ExitCalled as called:
        print(
            f"\nThe run failed: {called}, by code that --model={config.model} runs. Raise an "
            f"exception there instead. {place}/result.json says so too.",
            file=sys.stderr,
        )
        return 1
    except (LossScaleCollapse, NonFiniteRun) as error:
        print(f"\nThe run failed. {error}\nThe rows are in {place}.", file=sys.stderr)
        return 1
    except Exception:
        if sys.stdout.isatty():
            print()  # The progress may have left its line open.
        traceback.print_exc()
        print(f"\nThe run failed; the error is in {place}/result.json too.", file=sys.stderr)
        return 1
    print(summary(trained.result, place))
    return 0


def _check_names(config: Any) -> None:
    # Cheap checks first: a typing error should not cost TensorFlow's import.
    from tfamp.models import registry as model_registry

    model_registry.check_name(config.model)


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
    look = commands.typed("tensorboard", os.path.dirname(place) or ".")
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
        lines.append(
            f"  loss scale           {scale.initial:.9g} -> {scale.final:.9g} "
            f"({scale.mode}), {scale.skipped} of {figures.steps_attempted} steps skipped"
        )
    return lines


if __name__ == "__main__":
    app.run(main, flags_parser=run_flags.parse_or_exit)
