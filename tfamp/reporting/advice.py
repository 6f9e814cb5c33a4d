"""What to run next, where runs could not be compared or only in part: commands to copy."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath

from tfamp.reporting import sources
from tfamp.reporting.groups import Comparisons, Group, xla_words
from tfamp.reporting.runs import FinishedRun
from tfamp.reporting.seeds import by_seed
from tfamp.run.command import typed
from tfamp.run.config import FLOAT16_POLICIES, POLICIES, SCALE_SETTINGS, Config, declarations
from tfamp.run.kinds import Switch
from tfamp.run.resolve import default_run_name

# Flags that a command sets itself or that mean nothing under another policy.
_OWN_FLAGS = ("policy", "seed", "run_name", "overwrite", "jit_compile")
_SCALE_FLAGS = ("loss_scale", *SCALE_SETTINGS)
_SWITCHES = [name for name, each in declarations().items() if isinstance(each.kind, Switch)]
_DEFAULTS = json.loads(json.dumps(Config().to_json()))


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to run, and what for.

    Attributes:
        why: A sentence that ends in a colon.
        commands: Command lines to copy.
    """

    why: str
    commands: tuple[str, ...]


def advise(logdir: Path, baseline: str, comparisons: Comparisons) -> list[Advice]:
    """Says what makes runs comparable: what costs were left out, or that there is nothing at all.

    Args:
        logdir: The folder of the runs.
        baseline: What they are compared with.
        comparisons: What could be compared.

    Returns:
        Nothing where all that was asked is answered.
    """
    groups = comparisons.groups
    taken = {PurePath(run.directory).name for group in groups for run in group.runs}
    found = [_same_compiler(group, taken) for group in groups if group.unlike]
    if any(group.comparisons for group in groups):
        return found
    if not groups:
        other = "mixed_float16" if baseline != "mixed_float16" else "float32"
        policies = f"--policies={baseline if baseline in POLICIES else 'float32'},{other}"
        return [
            Advice(
                f"No run below {logdir} has finished, so there is nothing to compare. This trains "
                "two runs that can be, and makes this report anew:",
                (typed("sweep", str(logdir), policies),),
            )
        ]
    return [_partners(group, baseline, taken) for group in groups]


def _same_compiler(group: Group, taken: Collection[str]) -> Advice:
    base = group.baseline
    assert base is not None
    unlike = group.unlike
    labels = " and ".join(variant.label for variant, _ in unlike)
    wanted = unlike[0][0].has_xla
    seeds = {seed for _, comparison in unlike for seed in comparison.seeds}
    lines = [_command(run, taken, run.policy, jit=wanted) for run in base.runs if run.seed in seeds]
    ran = f"{base.label} ran {xla_words(base.has_xla)}"
    return Advice(
        f"{group.title}: accuracy is compared, time and memory are not, as {ran} beside {labels}. "
        f"To compare those too, train {base.label} {xla_words(wanted)}:",
        tuple(lines),
    )


def _partners(group: Group, baseline: str, taken: Collection[str]) -> Advice:
    """The runs that a group lacks."""
    if group.baseline is None:
        policy = baseline if baseline in POLICIES else "float32"
        runs = {run.seed: run for run in reversed(group.runs)}
        return Advice(
            f"{group.title}: no {baseline} run shares these settings. Train it:",
            tuple(_command(runs[seed], taken, policy) for seed in sorted(runs, key=by_seed)),
        )
    others = [v for v in group.variants if v is not group.baseline]
    if others:
        run = group.baseline.runs[0]
        seeds = {run.seed for variant in others for run in variant.runs}
        return Advice(
            f"{group.title}: {group.baseline.label} has no run of the seeds that the others have. "
            "Train it:",
            tuple(
                _command(run, taken, run.policy, seed=seed) for seed in sorted(seeds, key=by_seed)
            ),
        )
    policy = next(p for p in ("mixed_float16", "float32") if p != group.baseline.precision.policy)
    return Advice(
        f"{group.title}: there is {group.baseline.label} alone. Train the same in another "
        "precision:",
        tuple(_command(run, taken, policy) for run in group.baseline.runs),
    )


def _command(
    run: FinishedRun,
    taken: Collection[str],
    policy: str,
    jit: bool | None = None,
    seed: int | None = None,
) -> str:
    """The command of a run again, under another policy, seed or compiler.

    Args:
        run: The run.
        taken: Names of runs that are there, which the new one must not have.
        policy: Its policy.
        jit: Whether XLA compiles it; as the run unless given.
        seed: Its seed; the run's unless given.
    """
    if _is_script(run):
        script = sources.command(run.command_line)
        return f"{script}  # under {policy}, with a run directory of its own"
    seed = run.seed if seed is None else seed
    jit = run.config.jit_compile if jit is None else jit
    arguments = [f"--policy={policy}"]
    dropped = {*_OWN_FLAGS, *(() if policy in FLOAT16_POLICIES else _SCALE_FLAGS)}
    arguments += _kept(_typed(run), dropped)
    if seed not in (None, _DEFAULTS["seed"]):
        arguments.append(f"--seed={seed}")
    if jit is not None:
        arguments.append("--jit_compile" if jit else "--nojit_compile")
    usual = default_run_name(dataclasses.replace(run.config, policy=policy, seed=seed or 0))
    if usual in taken:
        name = f"{usual}-{'xla' if jit else 'no_xla'}"
        while name in taken:
            name += "-again"
        arguments.append(f"--run_name={name}")
    return typed("train", *arguments)


def _is_script(run: FinishedRun) -> bool:
    """Whether a script of the user's trained it, which takes no flags of tfamp's."""
    program = PurePath(run.command_line[0]) if run.command_line else PurePath()
    return program.suffix == ".py" and program.name != "train.py"


def _typed(run: FinishedRun) -> Sequence[str]:
    """The flags of a run, as typed; from its config where something else than tfamp.train ran."""
    if run.command_line and PurePath(run.command_line[0]).name == "train.py":
        return run.command_line[1:]
    chosen = ["initial_loss_scale"] if run.config.loss_scale == "auto" else []
    return [
        f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in run.settings.items()
        if value not in (_DEFAULTS.get(name), None) and name in _DEFAULTS and name not in chosen
    ]


def _kept(arguments: Sequence[str], dropped: Collection[str]) -> Iterator[str]:
    """The arguments without some flags, in whatever spelling."""
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
            continue
        found = re.fullmatch(r"--?(\w+)(=.*)?", argument, re.DOTALL)
        name = found.group(1) if found else ""
        if name.removeprefix("no") in _SWITCHES and name.removeprefix("no") in dropped:
            continue
        if name in dropped:
            is_value = found is not None and found.group(2) is None
            continue
        yield argument
