"""What experiments/loss_scaling.md tells of runs without a loss scale: amp_vs_float32's."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.tables import share, table
from tfamp.reporting.figures.style import power_of_two

REPORT = Path(__file__).parents[1] / "results" / "amp_vs_float32" / "report.json"
WITH, WITHOUT = "mixed_float16", "mixed_float16 without loss scaling"
MODELS = {"resnet20": "ResNet-20", "vit_tiny": "ViT-Tiny"}


@functools.cache
def variants(model: str) -> Mapping[str, Any]:
    """The variants of a model's runs in the fit loop, by label."""
    groups = json.loads(REPORT.read_text())["groups"]
    (group,) = (
        one["variants"]
        for one in groups
        if (one["settings"]["model"], one["settings"]["loop"]) == (model, "fit")
    )
    return {variant["label"]: variant for variant in group}


def zeros(model: str, label: str) -> float:
    """The share of weight gradients' entries that were zero, over all steps of all seeds."""
    runs = variants(model)[label]["runs"]
    return sum(run["gradients"]["zero_share"] for run in runs) / len(runs)


def lost_points(model: str, label: str) -> str:
    """How far a model's accuracy is from float32's, with its interval."""
    found = variants(model)[label]["comparison"]["accuracy_difference"]
    value, low, high = (100 * found[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f}), {found['verdict']}"


def runs_table() -> str:
    """With and without a loss scale."""
    rows = []
    for model, name in MODELS.items():
        for label, scaled in ((WITH, "dynamic"), (WITHOUT, "none")):
            found = variants(model)[label]
            ended = found["final_scale"]
            rows.append(
                (
                    name,
                    scaled if ended is None else f"{scaled}, ends at {power_of_two(ended['max'])}",
                    str(found["skipped_steps"]["total"]) if found["skipped_steps"] else "0",
                    share(zeros(model, label)),
                    lost_points(model, label),
                )
            )
    head = ("model", "loss scale", "skipped, three seeds", "zeros in weight gradients",
            "accuracy against float32")  # fmt: skip
    return table(head, rows)


def values() -> dict[str, Callable[[], str]]:
    """Each name's text."""
    return {"without.table": runs_table}
