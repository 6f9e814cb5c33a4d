r"""Remakes every number of experiments/loss_scaling.md, and fails where a text tells another one.

    scripts/python.sh -m experiments.loss_scaling page --check
    scripts/python.sh -m experiments.loss_scaling page

Without flags the commands of the page run first, one after the other. --check leaves them out: it
holds the text against the results that are there, and takes seconds. --write writes what the
results say into the text. experiments/README.md, which tells minutes, is held in the same way.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from experiments import held_text
from experiments.loss_scaling import (
    told_formats,
    told_models,
    told_readme,
    told_runs,
    told_scalers,
    told_steps,
    told_without,
)
from experiments.loss_scaling.steps import STEPS, Step
from tfamp.run.command import DONE, FAILED, Command, Ended, Given, Option
from tfamp.run.errors import InputError, setting, unknown_name
from tfamp.run.kinds import Patterns, Switch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "experiments" / "loss_scaling.md"
# Its benchmarks and sweeps have numbers of their own.
README = ROOT / "experiments" / "README.md"
TOLD = (told_formats, told_models, told_runs, told_scalers, told_steps, told_without)


def values(modules: Sequence[ModuleType] = TOLD) -> held_text.Values:
    """What each name of some modules stands for.

    Raises:
        ValueError: Two modules have a value of one name.
    """
    found = [dict(module.values()) for module in modules]
    counts = Counter(itertools.chain.from_iterable(found))
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"Two values are named {', '.join(twice)}.")
    return {name: value for one in found for name, value in one.items()}


def remake(names: Sequence[str]) -> list[str]:
    """Runs the commands, and notes how long each took.

    Returns:
        The names of those that were left out.

    Raises:
        Ended: One of them failed.
    """
    left_out = []
    for name in names:
        step = STEPS[name]
        if not step.is_possible():
            left_out.append(name)
            continue
        print(f"{name}: {step.command}", flush=True)
        started = time.monotonic()
        _run(name, step)
        _note(name, time.monotonic() - started)
        _leave_out_this_folder(ROOT / step.makes)
    return left_out


def _run(name: str, step: Step) -> None:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": paths, "TFAMP_SCRIPTS": "scripts"}
    done = subprocess.run(step.arguments, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise Ended(FAILED, f"{name} ended with {done.returncode}: {step.command}")


def _note(name: str, seconds: float) -> None:
    file = told_steps.DURATIONS
    noted = json.loads(file.read_text()) if file.exists() else {}
    noted[name] = round(seconds, 1)
    file.write_text(json.dumps({one: noted[one] for one in STEPS if one in noted}, indent=2) + "\n")


def _leave_out_this_folder(made: Path) -> None:
    # A committed result names no folder of a machine; a run in runs/ may.
    if made.suffix == ".json":
        for path in made.parent.iterdir():
            if path.suffix in (".json", ".md"):
                text = path.read_text(encoding="utf-8")
                path.write_text(text.replace(f"{ROOT}{os.sep}", ""), encoding="utf-8")


def _body(given: Given) -> int:
    names = given["only"] or tuple(STEPS)
    for name in names:
        if name not in STEPS:
            raise unknown_name("step", name, STEPS, "only")
    if given["check"] and (given["only"] or given["write"]):
        other = "only" if given["only"] else "write"
        raise InputError(
            f"{setting('check', True)} runs nothing and writes nothing: leave {setting(other)} out."
        )
    if not given["check"]:
        for name in remake(names):
            needed = STEPS[name].needs
            print(f"{name} was left out, and its results stay: it needs {needed} here.")
    if given["write"]:
        for text, modules in _texts():
            written = held_text.rewritten(text.read_text(encoding="utf-8"), values(modules))
            text.write_text(written, encoding="utf-8")
    found = [
        f"{text.relative_to(ROOT).as_posix()}, {one}"
        for text, modules in _texts()
        for one in held_text.differences(
            text.read_text(encoding="utf-8"), values(modules), is_strict=text == PAGE
        )
    ]
    if found:
        raise Ended(FAILED, "\n".join(found))
    for text, modules in _texts():
        where = text.relative_to(ROOT).as_posix()
        print(f"{where} tells what the results say, in {len(values(modules))} values.")
    return DONE


def _texts() -> list[tuple[Path, Sequence[ModuleType]]]:
    return [(PAGE, TOLD), (README, (told_readme,))]


COMMAND = Command(
    name="experiments.loss_scaling page",
    about=__doc__,
    options={
        "check": Option(False, Switch(), "Run nothing; hold the text against what is there."),
        "write": Option(False, Switch(), "Write what the results say into the text."),
        "only": Option((), Patterns(), f"Run only these: {', '.join(STEPS)}."),
    },
    body=_body,
)
main = COMMAND.main
