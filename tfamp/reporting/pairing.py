"""Which runs may be compared: those whose settings agree in all but precision and seed.

Runs of one model that differ in the compiler too may be compared in what they computed, though not
in what it cost: where nothing else is left to compare a run with, it joins those.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tfamp.reporting.runs import FinishedRun, PassedOver
from tfamp.run.config import Role, names_of
from tfamp.run.run_config import changed_files, short_hash

# Whether XLA compiled the run.
COMPILER = "jit_compile"
# What runs need not share to be compared.
_APART = names_of(Role.PRECISION, Role.REPETITION, Role.PLACE)
# What an older run did not record of its model.
_MODEL_FIELDS = ("trainable_parameters", "model_sha256")


def settings_of(run: FinishedRun) -> dict[str, Any]:
    """What runs must share to be compared: their settings, and the model itself where known."""
    settings = {name: value for name, value in run.settings.items() if name not in _APART}
    known = {name: getattr(run, name) for name in _MODEL_FIELDS}
    return settings | {name: value for name, value in known.items() if value is not None}


def gather(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Sorts runs into sets that share their settings and their device."""
    members: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in _with_known_models(runs):
        members[_key(run)].append(run)
    return list(members.values())


def join_compilers(
    members: Sequence[list[FinishedRun]], is_baseline: Callable[[FinishedRun], bool]
) -> list[list[FinishedRun]]:
    """Adds sets without a baseline to those that differ from them in the compiler alone.

    Args:
        members: The sets of `gather`.
        is_baseline: Says whether a run is one that others are compared with.

    Returns:
        The sets; one that was added to another, with which it shares a seed, is not there itself.
    """
    hosts: dict[str, list[FinishedRun]] = {}
    for group in members:
        if any(map(is_baseline, group)):
            hosts[_key(group[0], but=(COMPILER,))] = group
    joined = [list(group) for group in members]
    for index, group in enumerate(members):
        if any(map(is_baseline, group)):
            continue
        host = hosts.get(_key(group[0], but=(COMPILER,)), [])
        if {run.seed for run in group} & {run.seed for run in host if is_baseline(run)}:
            joined[next(n for n, other in enumerate(members) if other is host)] += group
            joined[index] = []
    return [group for group in joined if group]


@dataclasses.dataclass(frozen=True)
class Unpaired(PassedOver):
    """A run that no other may be compared with.

    Attributes:
        differs_in: The settings in which the most similar one differs.
    """

    differs_in: tuple[str, ...] = ()


def unpaired(run: FinishedRun, why: str, others: Sequence[FinishedRun]) -> Unpaired:
    """Leaves a run without a partner, and says in what the most similar of `others` differs."""
    if not others:
        return Unpaired(run.directory, f"{why} There is none to compare it with.")

    def differences(other: FinishedRun) -> dict[str, tuple[Any, Any]]:
        here, there = settings_of(run), settings_of(other)
        here["device"], there["device"] = run.result.device, other.result.device
        names = sorted(here.keys() | there.keys())
        return {n: (here.get(n), there.get(n)) for n in names if here.get(n) != there.get(n)}

    nearest = min(others, key=lambda other: (len(differences(other)), other.directory))
    found = differences(nearest)
    parts = [part for name, (a, b) in found.items() for part in _difference(name, a, b)]
    why += f" The nearest, {nearest.directory}, differs in {', '.join(parts)}."
    return Unpaired(run.directory, why, differs_in=tuple(found))


def _difference(name: str, here: Any, there: Any) -> list[str]:
    if name == "model_sha256" and here and there:
        return [
            f"the content of {file} ({short_hash(a)} here, {short_hash(b)} there)"
            for file, (a, b) in changed_files(here, there).items()
        ]
    if name in _MODEL_FIELDS:
        what = "the model's content" if name == "model_sha256" else "trainable parameters"
        a, b = (_known(value) for value in (here, there))
        return [f"{what} ({a} here, {b} there)"]
    return [f"{name} ({here} here, {there} there)"]


def _known(value: Any) -> str:
    if value is None:
        return "not recorded"
    return f"{value:,}" if isinstance(value, int) else "recorded"


def _key(run: FinishedRun, but: Sequence[str] = ()) -> str:
    settings = {n: value for n, value in settings_of(run).items() if n not in but}
    return json.dumps([settings, run.result.device], sort_keys=True)


def _with_known_models(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Gives runs that did not record their model what the others of their settings recorded.

    Where those do not agree among each other, it cannot be told which of them such a run is like:
    it stays without, and is compared with its like alone.
    """
    found = list(runs)
    # The number of parameters first: it may tell which content is meant.
    for index, name in enumerate(_MODEL_FIELDS):
        but = (COMPILER, *_MODEL_FIELDS[index:])
        recorded_of: dict[str, dict[str, Any]] = defaultdict(dict)
        for run in found:
            value = getattr(run, name)
            if value is not None:
                recorded_of[_key(run, but)][json.dumps(value, sort_keys=True)] = value
        for number, run in enumerate(found):
            values = list(recorded_of[_key(run, but)].values())
            if getattr(run, name) is None and len(values) == 1:
                found[number] = dataclasses.replace(run, **{name: values[0]})
    return found
