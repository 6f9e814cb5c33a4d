"""Runs of several scalings: made one by one, and what those of one scaling say together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.loss_scaling import training
from experiments.loss_scaling.results_file import ResultsFile
from experiments.loss_scaling.scalings import Scaling
from experiments.loss_scaling.workloads import Workload

Say = Callable[[str], None]
# Digits that a results file keeps.
_DIGITS = 5
_FIGURES = (
    "score",
    "skips",
    "gradient_error",
    "first_loss",
    "last_loss",
)


class Cell(NamedTuple):
    """A run that is wanted."""

    workload: Workload
    scaling: Scaling
    seed: int

    @property
    def name(self) -> str:
        """Its name in a results file."""
        return f"{self.workload.name}, {self.scaling.name}, seed {self.seed}"


def runs_of(
    cells: Sequence[Cell], results: ResultsFile, say: Say = print, keeps_layers: bool = False
) -> list[dict[str, Any]]:
    """Makes the runs that the file does not have; writes each as soon as it is there.

    Args:
        cells: Which.
        results: The file.
        say: Is told of each.
        keeps_layers: Whether the file has the underflow by layer.
    """
    found = []
    for number, (workload, scaling, seed) in enumerate(cells, 1):
        name = Cell(workload, scaling, seed).name
        is_new = not results.has(name)

        def make(workload: Workload, scaling: Scaling, seed: int) -> dict[str, Any]:
            run = rounded(training.run(workload, scaling, seed))
            for look in () if keeps_layers else run["gradient"]:
                del look["underflow_by_layer"]
            return run

        run = results.run(name, lambda cell=(workload, scaling, seed): make(*cell))
        found.append(run)
        took = f"{run['seconds']:.0f} s" if is_new else "was there"
        say(f"{number}/{len(cells)}  {name}: {in_words(run, workload)}  ({took})")
    return found


def in_words(run: Mapping[str, Any], workload: Workload) -> str:
    """A run in a line."""
    parts = [f"{100 * run['score']:.1f} % {workload.score_name}", f"{run['skips']} skips"]
    if run["gradient_error"] is not None:
        parts.append(f"gradient error {100 * run['gradient_error']:.2g} %")
    if run["ended_by"] != training.COMPLETED:
        parts.append(f"{run['ended_by']} after {run['steps']} steps")
    return ", ".join(parts)


def table(cells: Sequence[Cell], runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the runs of each workload and scaling say together.

    Returns:
        A row for each, in order: `workload`, `scaling` (its name), `settings` (the scaling's own),
        `policy`, `seeds`; of `score`, `skips`, `settled_after` (null where a seed did not settle),
        `gradient_error`, `first_loss`, `last_loss` and `log2_final` the `mean`, `low` and `high`
        over the seeds that have one, and how many do (`n`); `ended_by`, runs by how they ended.
    """
    groups: dict[tuple[str, Scaling], list[tuple[Cell, Mapping[str, Any]]]] = {}
    for cell, run in zip(cells, runs, strict=True):
        groups.setdefault((cell.workload.name, cell.scaling), []).append((cell, run))
    rows = []
    for (workload, scaling), members in groups.items():
        of_seeds = [run for _, run in members]
        settled = [run["scale"]["settled_after"] for run in of_seeds]
        row: dict[str, Any] = {
            "workload": workload,
            "scaling": scaling.name,
            "settings": dataclasses.asdict(scaling),
            "policy": scaling.policy,
            "seeds": [cell.seed for cell, _ in members],
            "settled_after": None if None in settled else spread(settled),
            "log2_final": spread(run["scale"]["log2_final"] for run in of_seeds),
            "ended_by": {
                end: sum(run["ended_by"] == end for run in of_seeds)
                for end in sorted({run["ended_by"] for run in of_seeds})
            },
        }
        for key in _FIGURES:
            row[key] = spread(run[key] for run in of_seeds)
        rows.append(rounded(row))
    return rows


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Mean and range of the values that there are; None without any."""
    there = [float(value) for value in values if value is not None]
    if not there:
        return None
    return {"mean": float(np.mean(there)), "low": min(there), "high": max(there), "n": len(there)}


def rounded(value: Any) -> Any:
    """JSON types with fractions of few digits."""
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    # Powers of two stay what they are.
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return float(f"{value:.{_DIGITS}g}")
    return value


def shown(rows: Iterable[Mapping[str, Any]], score_name: str) -> str:
    """Rows as a table to read in a terminal."""
    lines = [
        f"{'scaling':44} {score_name:>22} {'skips':>11} {'settled after':>13} "
        f"{'gradient error':>20}"
    ]
    for row in rows:
        settled = _range(row["settled_after"], "{:.0f}") if row["settled_after"] else "never"
        lines.append(
            f"{row['scaling']:44} {_range(row['score'], '{:.1%}'):>22} "
            f"{_range(row['skips'], '{:.0f}'):>11} "
            f"{settled if row['settings']['kind'] not in ('float32', 'none') else '':>13} "
            f"{_range(row['gradient_error'], '{:.2%}'):>20}"
        )
    return "\n".join(lines)


def _range(found: Mapping[str, float] | None, form: str) -> str:
    if found is None:
        return ""
    if found["low"] == found["high"]:
        return form.format(found["mean"])
    low, high = (form.format(found[end]) for end in ("low", "high"))
    return f"{form.format(found['mean'])} ({low}-{high})"
