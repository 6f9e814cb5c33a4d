"""What experiments/loss_scaling.md tells of the three scalers, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from experiments.tables import table
from tfamp.reporting.figures.style import power_of_two
from tfamp.run.scale_rules import ScaleRules

RESULTS = Path(__file__).parents[1] / "results"
NAMES = {"tfamp": "tfamp", "keras": "Keras", "torch": "PyTorch"}


def results() -> Mapping[str, Any]:
    """By stream and scaler."""
    return json.loads((RESULTS / "loss_scaling" / "scalers.json").read_text())["results"]


def _power(scale: float | str) -> str:
    return "infinite" if scale == "inf" else "0" if scale == 0 else power_of_two(float(scale))


def streams_table() -> str:
    """What became of each stream, a row for each scaler."""
    rows = []
    for stream, found in results().items():
        for scaler, name in NAMES.items():
            one = found[scaler]
            stops = one["collapsed_at"]
            rows.append(
                (
                    f"`{stream}`, {found['steps']:,} steps",
                    name,
                    f"{_power(one['first_scale'])} to {_power(one['last_scale'])}",
                    f"step {one['last_move']:,}",
                    f"{one['skipped']:,}",
                    "NaN" if one["weight"] == "nan" else "finite",
                    f"step {stops}" if stops else "never",
                )
            )
    head = ("stream", "scaler", "scale", "last moved", "skipped", "weight", "gives up")
    return table(head, rows)


def bad_batches_table() -> str:
    """The scale at the end of each stream of bad batches, a column for each scaler."""
    found = json.loads((RESULTS / "bad_batches.json").read_text())["results"]
    rows = [
        (f"`{stream}`", *(_power(ways[scaler]["scale"]) for scaler in NAMES))
        for stream, ways in found.items()
    ]
    return table(("stream", *NAMES.values()), rows)


def _of(stream: str, scaler: str, key: str) -> str:
    value = results()[stream][scaler][key]
    return _power(value) if key.endswith("scale") else f"{value:,}"


def values() -> dict[str, Callable[[], str]]:
    """Each name's text."""
    rules = ScaleRules()
    return {
        "rules.initial_scale": lambda: power_of_two(rules.initial_scale),
        "rules.growth_steps": lambda: f"{rules.dynamic_growth_steps:,}",
        "rules.min_scale": lambda: power_of_two(rules.min_scale),
        "rules.max_scale": lambda: power_of_two(rules.max_scale),
        "rules.max_skipped": lambda: str(rules.max_skipped_in_a_row),
        "rules.recovery_steps": lambda: str(rules.recovery_steps),
        "scalers.table": streams_table,
        "scalers.torch.first_scale": partial(_of, "settles", "torch", "first_scale"),
        "scalers.keras.zero_after": partial(_of, "never_finite", "keras", "last_move"),
        "scalers.torch.zero_after": partial(_of, "never_finite", "torch", "last_move"),
        "scalers.keras.infinite_after": partial(_of, "never_overflows", "keras", "last_move"),
        "scalers.torch.highest": partial(_of, "never_overflows", "torch", "highest_scale"),
        "scalers.tfamp.gives_up": partial(_of, "never_finite", "tfamp", "collapsed_at"),
        "bad_batches.table": bad_batches_table,
        # What experiments/bad_batches.py sets for PyTorch, and the default of the others.
        "bad_batches.first_scale": lambda: power_of_two(rules.initial_scale),
    }
