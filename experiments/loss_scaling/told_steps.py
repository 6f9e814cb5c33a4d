"""What experiments/loss_scaling.md tells of its commands, and how long each took."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from experiments.loss_scaling.steps import STEPS
from experiments.tables import table

ROOT = Path(__file__).parents[2]
DURATIONS = ROOT / "experiments" / "results" / "loss_scaling" / "durations.json"


def seconds() -> dict[str, float]:
    """What each command took, where it is known; the lab's runs told it themselves."""
    found = json.loads(DURATIONS.read_text())
    for name, step in STEPS.items():
        made = ROOT / step.makes
        if name not in found and made.suffix == ".json" and made.exists():
            runs = json.loads(made.read_text()).get("runs", {}).values()
            if told := [run["seconds"] for run in runs if "seconds" in run]:
                found[name] = sum(told)
    return found


def commands() -> str:
    """The commands, in their order, with minutes."""
    taken = seconds()
    rows = [
        (
            f"`{step.command}`",
            f"`{step.makes}`",
            f"{taken[name] / 60:.1f}" if name in taken else "not measured",
        )
        for name, step in STEPS.items()
    ]
    return table(("command", "makes", "minutes"), rows)


def values() -> dict[str, Callable[[], str]]:
    """Each name's text."""
    return {"steps.commands": commands}
