"""What experiments/loss_scaling.md tells of the lab's own runs: strategies, claim and failure."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from experiments.loss_scaling.told_models import RESULTS
from experiments.tables import share, table, two_to_the

Row = Mapping[str, Any]


@functools.cache
def results(part: str) -> Mapping[str, Any]:
    """What a part of the lab found."""
    return json.loads((RESULTS / f"{part}.json").read_text())


def rows_of(part: str, workload: str) -> Sequence[Row]:
    """The rows of a workload: one for each way to choose a scale, over the seeds."""
    return [row for row in results(part)["table"] if row["workload"] == workload]


def strategies_table(workload: str) -> str:
    """Ways to choose a scale, a row each."""
    rows = [
        (
            named(row["scaling"]),
            over_seeds(row["skips"], "{:.0f}"),
            settled(row),
            of_shares(row["gradient_error"]),
            of_shares(row["score"]),
        )
        for row in rows_of("strategies", workload)
    ]
    return table(
        ("loss scale", "skipped", "settled after", "gradient error", score_of(workload)), rows
    )


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


def claim_table() -> str:
    """Static scales on both sides of both walls."""
    rows = []
    for row in rows_of("claim", "detector"):
        is_static = row["settings"]["kind"] == "static"
        predicted = row.get("predicted_error")
        rows.append(
            (
                named(row["scaling"]),
                row.get("place_in_first_window") or "",
                row.get("place_in_common_window") or "",
                ("not finite" if predicted is None else share(predicted)) if is_static else "",
                of_shares(row.get("error_at_first_step")) if is_static else "",
                over_seeds(row["skips"], "{:.0f}"),
                points(row["score_minus_float32"]),
            )
        )
    head = ("loss scale", "of the first window", "of all windows", "predicted error",
            "error at the first step", "skipped", "points against float32")  # fmt: skip
    return table(head, rows)


def windows_table() -> str:
    """The detector's window as it learns."""
    rows = [
        (f"{look['step']:,}", "none" if look["window"] is None else window(look["window"]))
        for look in results("claim")["windows"]
    ]
    return table(("after steps", "window"), rows)


def window(found: Mapping[str, Any]) -> str:
    """A window's ends."""
    more = " or more" if found["is_open"] else ""
    return f"{two_to_the(found['log2_min'])} to {two_to_the(found['log2_max'])}{more}"


def common_window() -> str:
    """The scales that every window has."""
    found = results("claim")["common_window"]
    return "none" if found is None else window(found)


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


def points(found: Mapping[str, float] | None) -> str:
    """The same of differences of shares, in points of percent."""
    hundred = found and {key: 100 * found[key] for key in ("mean", "low", "high")}
    return over_seeds(hundred, "{:+.1f}")


def settled(row: Row) -> str:
    """The step after which a scale stayed."""
    if row["settings"]["kind"] in ("float32", "none", "static"):
        return "is fixed"
    return "never" if row["settled_after"] is None else over_seeds(row["settled_after"], "{:.0f}")


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
        "strategies.detector": partial(strategies_table, "detector"),
        "strategies.resnet20": partial(strategies_table, "resnet20"),
        "failure.table": failure_table,
        "failure.untrained": partial(chance, "untrained"),
        "failure.lost": partial(lost, "none", 0),
        "failure.lost_later": partial(lost, "none", 1),
        "failure.later": lambda: str(results("failure")["underflow_by_layer"]["none"]["steps"][1]),
        "claim.table": claim_table,
        "claim.windows": windows_table,
        "claim.common": common_window,
    }
