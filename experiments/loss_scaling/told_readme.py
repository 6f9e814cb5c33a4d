"""What experiments/README.md tells of the exercises: how long their commands took."""

from __future__ import annotations

import json
from collections.abc import Callable

from experiments.loss_scaling import told_steps
from experiments.loss_scaling.told_without import REPORT


def minutes_of_the_first() -> str:
    """Training of all runs of the first exercise, compilation included."""
    seconds = sum(
        run["figures"]["first_call_sec"]
        + group["settings"]["epochs"] * run["figures"]["epoch_time_sec"]
        for group in json.loads(REPORT.read_text())["groups"]
        for variant in group["variants"]
        for run in variant["runs"]
    )
    return f"{seconds / 60:.0f}"


def minutes_of_the_second() -> str:
    """All commands of the second exercise's page."""
    return f"{sum(told_steps.seconds().values()) / 60:.0f}"


def values() -> dict[str, Callable[[], str]]:
    """Each name's text."""
    return {
        "exercise1.minutes": minutes_of_the_first,
        "exercise2.minutes": minutes_of_the_second,
    }
