"""What each precision and loss scale leaves of a model's gradient, measured against float64.

scripts/fidelity.sh [FLAG ...], or python -m tfamp.fidelity where tfamp is installed.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfamp.run import command, past_run, step_config
from tfamp.run import flags as run_flags
from tfamp.run.command import Command, Ended, Given, Option
from tfamp.run.config import Config
from tfamp.run.errors import ExitCalled, InputError, setting
from tfamp.run.fidelity import LARGEST_LOG2_SCALE, PRECISIONS, SCALED, Fidelity
from tfamp.run.kinds import Exponents, Folder, Names, Number
from tfamp.run.past_run import PastRun
from tfamp.run.ranges import whole
from tfamp.run.step_config import StepConfig
from tfamp.training import startup

if TYPE_CHECKING:
    from tfamp.training.build import BuiltRun


def _fidelity(given: Given) -> int:
    past = None if given["run"] is None else past_run.read(Path(given["run"]))
    made = step_config.make(run_flags.asked(given.flags), past)
    _check_scales(given)
    out = _out(given["out"], past)
    _check_early(made.config, out)
    command.quiet_libraries()
    with command.ctrl_c_ends("Interrupted: nothing was written."):
        startup.import_tensorflow(float16=True)
        try:
            fidelity = _measured(given, made, past)
        except InputError:
            raise
        except SystemExit as call:
            raise Ended(
                command.FAILED,
                f"It failed: {ExitCalled(call)}, by code that --model={made.config.model} runs. "
                "Raise an exception there instead. Nothing was written.",
            ) from None
        except Exception as error:
            raise Ended(command.FAILED, "It failed; nothing was written.", error) from None
    _write(fidelity, out, past)
    return command.DONE


def _check_scales(given: Given) -> None:
    if given.flags["log2_scales"].present and SCALED not in given["precisions"]:
        raise InputError(
            f"{setting('log2_scales')} with {setting('precisions', given['precisions'])}: only "
            f"{SCALED} is scaled. Add it to {setting('precisions')}, or leave "
            f"{setting('log2_scales')} out."
        )


def _out(out: str | None, past: PastRun | None) -> Path:
    if out is not None:
        return Path(out).expanduser()
    if past is None:
        raise InputError(
            f"Neither {setting('out')} nor {setting('run')} came: there is no folder to write to. "
            f"Set {setting('out', 'fidelity')}, or {setting('run')} to the folder of a run."
        )
    return past.path / "fidelity"


def _check_early(config: Config, out: Path) -> None:
    # Before minutes are spent.
    from tfamp.models import registry as model_registry
    from tfamp.reporting.pages import fidelity_page

    model_registry.check_name(config.model)
    fidelity_page.check(out)


def _measured(given: Given, made: StepConfig, past: PastRun | None) -> Fidelity:
    from tfamp.diagnosis.fidelity import gradient_fidelity
    from tfamp.telemetry.progress import Told
    from tfamp.training.build import build, process_settings
    from tfamp.training.rebuild import rebuild

    config = made.config
    with process_settings(config):
        print(f"Building {config.model} and loading {config.dataset} ...", flush=True)
        run = build(config) if past is None else rebuild(past, config)
        batches = _batches(run, given["num_batches"])
        _say_what(run, made, len(batches))
        first, last = given["log2_scales"]
        with Told() as say:
            found = gradient_fidelity(
                run.model,
                None,
                batches,
                precisions=given["precisions"],
                log2_scales=range(first, last + 1),
                seed=config.seed,
                jit_compile=bool(config.jit_compile),
                progress=say,
            )
    return dataclasses.replace(
        found,
        model=config.model,
        dataset=config.dataset,
        command_line=(sys.argv[0], *given.arguments),
        settled_log2_scale=None if past is None else past.settled_log2_scale,
        limits=(*found.limits, *made.said, *_own_step(run)),
    )


def _batches(run: BuiltRun, number: int) -> list[Any]:
    there = run.data.steps_per_epoch
    if number > there:
        raise InputError(
            f"{setting('num_batches', number)}: an epoch of {run.config.dataset} has {there} "
            f"batches of {run.config.batch_size}. Set {there} or less, or a smaller "
            f"{setting('batch_size')}."
        )
    return list(run.data.train.take(number))


def _own_step(run: BuiltRun) -> Sequence[str]:
    from tfamp.training import own_step

    if not own_step.own_methods(run.model, ["train_step"]):
        return ()
    return (
        f"{run.config.model} has a train_step of its own: measured is the gradient of the compiled "
        "loss, which may be another.",
    )


def _say_what(run: BuiltRun, made: StepConfig, num_batches: int) -> None:
    from tfamp.precision import computes
    from tfamp.telemetry import memory

    config = run.config
    batches = "batch" if num_batches == 1 else "batches"
    xla = "with XLA" if config.jit_compile else "without XLA"
    print(
        f"{config.model}, {computes.trainable_parameters(run.model):,} trainable parameters, on "
        f"{num_batches} {batches} of {config.batch_size} of {config.dataset}, {xla}, on "
        f"{memory.described_device()}"
    )
    for line in (
        *made.said,
        *(computes.effect_in_words(*each) for each in run.float32_effects.items()),
    ):
        print(line, flush=True)


def _write(fidelity: Fidelity, out: Path, past: PastRun | None) -> None:
    from tfamp.diagnosis import fidelity_events
    from tfamp.reporting.pages import fidelity_page

    # First: what took minutes is there to be read also where it cannot be written.
    fidelity.show()
    files = fidelity_page.write(fidelity, out)
    print(f"Page: {out / 'fidelity.html'}; beside it fidelity.md, fidelity.json and pictures/.")
    if past is None:
        return
    try:
        fidelity_events.write(fidelity, files, past.path, past.steps)
    except OSError as error:
        raise Ended(
            command.FAILED,
            f"The TensorBoard of {past.path} could not be written: {error}. All else is in {out}.",
        ) from None
    print(f"TensorBoard: {command.typed('tensorboard', os.path.dirname(past.path) or '.')}")


COMMAND = Command(
    name="fidelity",
    about=(__doc__ or "").splitlines()[0],
    options={
        **step_config.options(),
        "run": Option(
            None,
            Folder(),
            "The folder of a run of tfamp.train, completed or interrupted, from which model, data, "
            "weights and settings are taken; flags beside it may set some anew.",
        ),
        "out": Option(
            None, Folder(), "Folder to write to. Default: RUN/fidelity, where --run is set."
        ),
        "num_batches": Option(1, Number(whole(1)), "Batches of the first epoch to measure on."),
        "log2_scales": Option(
            (0, 24),
            Exponents(whole(-LARGEST_LOG2_SCALE, LARGEST_LOG2_SCALE)),
            "Static loss scales 2^A to 2^B that mixed_float16 is tried at.",
        ),
        "precisions": Option(PRECISIONS, Names("precision", PRECISIONS), "What to measure."),
    },
    body=_fidelity,
    refused=step_config.refused(
        {"policy": "precisions", "loss_scale": "log2_scales", "logdir": "out"}
    ),
)
main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
