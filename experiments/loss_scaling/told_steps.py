"""What experiments/loss_scaling.md tells of its commands, and how long each took."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from experiments.loss_scaling.steps import STEPS
from experiments.tables import table

DURATIONS = Path(__file__).parents[1] / "results" / "loss_scaling" / "durations.json"


def commands() -> str:
    """The commands, in their order, with minutes."""
    taken = json.loads(DURATIONS.read_text())
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
