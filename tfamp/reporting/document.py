"""report.json: every number of the report, traceable to the run directories it came from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfamp import __version__
from tfamp.reporting import advice, caveats, sources, verdict
from tfamp.reporting.estimates import Estimate
from tfamp.reporting.gradient_summary import summarise_gradients
from tfamp.reporting.groups import Comparison, Comparisons, Group, Variant
from tfamp.reporting.measurements import MEASUREMENTS
from tfamp.reporting.runs import FinishedRun, PassedOver
from tfamp.reporting.scale_summary import summarise_scale
from tfamp.run import records

SCHEMA_VERSION = 1


def build(
    logdir: Path, baseline: str, comparisons: Comparisons, passed_over: Sequence[PassedOver]
) -> dict[str, Any]:
    """Makes the document that report.json holds and the pages are rendered from.

    Args:
        logdir: The folder that was searched, as the user gave it.
        baseline: What the runs are compared with.
        comparisons: The runs in their groups.
        passed_over: Folders that were not used.

    Returns:
        JSON values only; a figure that was not measured is null, one that is not finite a string.
    """
    ids = _unique([slug(group.title) for group in comparisons.groups])
    return _json(
        {
            "schema_version": SCHEMA_VERSION,
            "tfamp_version": __version__,
            "logdir": str(logdir),
            "baseline": baseline,
            "next_steps": [
                dataclasses.asdict(entry) for entry in advice.advise(logdir, baseline, comparisons)
            ],
            "smallest_effects": {
                "speed": verdict.SMALLEST_RATIO,
                "memory": verdict.SMALLEST_RATIO,
                "accuracy": verdict.SMALLEST_ACCURACY,
            },
            "groups": [
                _group(group, name) for group, name in zip(comparisons.groups, ids, strict=True)
            ],
            "unpaired": [_left_out(entry) for entry in comparisons.unpaired],
            "passed_over": [_left_out(entry) for entry in passed_over],
            "warnings": caveats.warnings(logdir, comparisons, passed_over),
            "provenance": sources.collect(logdir, comparisons),
        }
    )


def _left_out(entry: PassedOver) -> dict[str, Any]:
    return {
        "directory": entry.directory,
        "why": entry.why,
        "is_unfinished": entry.is_unfinished,
    }


def slug(text: str) -> str:
    """A text as a file name and an anchor."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-").lower()


def _unique(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return found


def _group(group: Group, name: str) -> dict[str, Any]:
    variants = [_variant(variant, group) for variant in group.variants]
    return {
        "id": name,
        "title": group.title,
        "device": group.device,
        "settings": group.settings,
        "baseline": group.baseline and group.baseline.label,
        "variants": [
            variant | {"id": unique}
            for variant, unique in zip(
                variants, _unique([slug(v.label) for v in group.variants]), strict=True
            )
        ],
    }


def _variant(variant: Variant, group: Group) -> dict[str, Any]:
    runs = [_run(run) for run in variant.runs]
    scales = [run["loss_scale"] for run in runs if run["loss_scale"] is not None]
    return {
        "label": variant.label,
        "precision": dataclasses.asdict(variant.precision)
        | {"scale_settings": dict(variant.precision.scale_settings)},
        "is_baseline": variant is group.baseline,
        "seeds": [run.seed for run in variant.runs],
        "jit_compile": variant.has_xla,
        "computes_in": _computes_in(variant.runs),
        "figures": {name: _estimate(variant.mean(name)) for name in MEASUREMENTS},
        "epoch_time_includes_compile": any(
            len(run.figures.epoch_time_sec) == 1 for run in variant.runs
        ),
        "skipped_steps": {
            "total": None
            if any(scale["skipped"] is None for scale in scales)
            else sum(scale["skipped"] for scale in scales),
            "of": sum(scale["steps"] for scale in scales),
            "per_run": [scale["skipped"] for scale in scales],
        }
        if scales
        else None,
        "final_scale": {
            "min": min(scale["final"] for scale in scales),
            "max": max(scale["final"] for scale in scales),
        }
        if scales
        else None,
        "comparison": _comparison(variant.comparison),
        "verdict": verdict.sentences(variant, group),
        "runs": runs,
    }


def _computes_in(runs: Sequence[FinishedRun]) -> list[str] | None:
    """What the runs really computed in, each once; None where none of them recorded it."""
    told = [run.computes_in for run in runs if run.computes_in is not None]
    return list(dict.fromkeys(told)) or None


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "seeds": list(comparison.seeds),
        "is_compiled_alike": comparison.is_compiled_alike,
        "step_speedup": _judged(comparison.step_speedup, verdict.speed),
        "epoch_speedup": _judged(comparison.epoch_speedup, verdict.speed),
        "memory_ratio": _judged(comparison.memory_ratio, verdict.memory),
        "accuracy_difference": _judged(comparison.accuracy_difference, verdict.accuracy),
    }


def _judged(estimate: Estimate | None, judge: Any) -> dict[str, Any] | None:
    return None if estimate is None else dataclasses.asdict(estimate) | {"verdict": judge(estimate)}


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else dataclasses.asdict(estimate)


def _run(run: FinishedRun) -> dict[str, Any]:
    scale, gradients = summarise_scale(run), summarise_gradients(run)
    return {
        "directory": run.directory,
        "seed": run.seed,
        "figures": {name: read(run) for name, read in MEASUREMENTS.items()},
        "loss_scale": scale and dataclasses.asdict(scale),
        "gradients": gradients and dataclasses.asdict(gradients),
        "command": sources.command(run.command_line),
        "git_revision": run.git_revision,
    }


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(entry) for entry in value]
    return records.to_json_number(value) if isinstance(value, float) else value
