"""What experiments/loss_scaling.md tells of the lab's own runs."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from experiments.loss_scaling.told_models import RESULTS
from experiments.tables import share, table, two_to_the


@functools.cache
def results(part: str) -> Mapping[str, Any]:
    """What a part of the lab found."""
    return json.loads((RESULTS / f"{part}.json").read_text())


def failure_table() -> str:
    """The detector in float32, without a scale and with one; and its head alone."""
    rows = [
        (
            named(row["scaling"]) + row["workload"].removeprefix("detector"),
            of_shares(row["score"]),
            over_seeds(row["skips"], "{:.0f}"),
            of_shares(row["gradient_error"]),
        )
        for row in results("failure")["table"]
    ]
    return table(("loss scale", score_of("detector"), "skipped", "gradient error"), rows)


def named(scaling: str) -> str:
    """A scaling's name with raised exponents, and what `none` is none of."""
    raised = re.sub(r"2\^(-?\d+)", lambda match: two_to_the(int(match[1])), scaling)
    return {"none": "no scale", "auto": "`--loss_scale=auto`"}.get(raised, raised)


def over_seeds(found: Mapping[str, float] | None, form: str) -> str:
    """A mean, and the range where seeds differ; a dash for what was not measured."""
    if found is None:
        return "not measured"
    mean, low, high = (form.format(found[key]) for key in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"


def of_shares(found: Mapping[str, float] | None) -> str:
    """The same of shares, in percent."""
    if found is None:
        return "not measured"
    mean, low, high = (share(found[key]) for key in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"


def score_of(workload: str) -> str:
    """What a workload's score measures."""
    return {"detector": "garments found", "resnet20": "validation accuracy"}[workload]


def chance(key: str) -> str:
    """What the detector's score is by chance."""
    found = results("failure")["chance"][key]
    return share(found["mean"] if isinstance(found, dict) else found)


def lost(scaling: str, look: int) -> str:
    """The share of the detector's activation gradients that become zero, at a look."""
    return share(results("failure")["underflow_by_layer"][scaling]["all"][look])


def values() -> dict[str, Callable[[], str]]:
    """Each name's text."""
    return {
        "failure.table": failure_table,
        "failure.untrained": partial(chance, "untrained"),
        "failure.lost": partial(lost, "none", 0),
        "failure.lost_later": partial(lost, "none", 1),
        "failure.later": lambda: str(results("failure")["underflow_by_layer"]["none"]["steps"][1]),
    }
