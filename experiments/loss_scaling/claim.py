"""The advisor's claim, held against runs: static scales inside its window train like float32.

scripts/python.sh -m experiments.loss_scaling claim

`tfamp.gradient_fidelity` measures the detector's window of loss scales, on the first batch and the
untrained weights as `--loss_scale=auto` does, and again every 50 steps at the weights that float32
has there: gradients change as a model learns, and its walls with them. Then powers of two on both
sides of both walls train as static scales, and the one that is advised on the first batch, three
seeds each, beside float32.

The window is measured operation by operation. The runs are compiled with XLA, which keeps float32
between operations that it fuses: what their own step makes of the gradient is told beside it.

Told of each scale: where it lies to the window of the first batch, and to what all windows that
were found have in common; the score less float32's, seed by seed; the error that was predicted, and
the error that the runs had; and what tfamp's static mode did where steps were not finite. Written
to claim.json and claim.png.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

import tfamp
from experiments.loss_scaling import claim_picture, comparison, options, strategies, training
from experiments.loss_scaling.comparison import Cell
from experiments.loss_scaling.gradient_error import errors_of_compiled_step
from experiments.loss_scaling.results_file import ResultsFile
from experiments.loss_scaling.scalings import FLOAT32, STATIC, Scaling, statics
from experiments.loss_scaling.workloads import Batch, Detector, Workload
from tfamp.precision import policy
from tfamp.reporting.figures import picture
from tfamp.run.command import Given

FILE = "claim.json"
SEEDS = (0, 1, 2)
# Beyond both walls.
LOG2_SCALES = range(0, 33)
_POINT = ("log2_scale", "relative_error", "underflow_fraction", "non_finite_fraction")
TRAINED = (0, 4, 8, 16, 20, 24, 28, 32)


def run(given: Given, folder: Path) -> None:
    """Makes the windows, the runs and the picture."""
    workload: Workload = Detector()
    seeds: Sequence[int] = SEEDS
    scales: Sequence[int] = LOG2_SCALES
    trained: Sequence[int] = TRAINED
    if given["quick"]:
        workload, seeds = dataclasses.replace(Detector(), **Detector.QUICK), SEEDS[:1]
        scales, trained = range(10, 21, 5), (10, 20)
    settings = {"workloads": [workload.settings()]}
    results = ResultsFile(folder / FILE, "claim", settings, given, [folder / strategies.FILE])
    if results.runs.get("windows", {}).get("log2_scales") != list(scales):
        results.runs.pop("windows", None)
    measured = results.run("windows", lambda: windows(workload, seeds[0], scales))
    for look in measured["looks"]:
        told = in_words(look["window"]) if look["window"] else f"none: {look['why']}"
        print(f"window after {look['step']} float32 steps: {told}")
    advised = measured["looks"][0]["advice"]["static_scale"]
    wanted = {*trained, *([] if advised is None else [round(math.log2(advised))])}
    scalings = [Scaling(FLOAT32), *statics(sorted(wanted))]
    cells = [Cell(workload, scaling, seed) for scaling in scalings for seed in seeds]
    runs = comparison.runs_of(cells, results)
    rows = comparison.table(cells, runs)
    first = measured["looks"][0]["window"]
    common = measured["common"] = in_common(look["window"] for look in measured["looks"])
    predicted = {point["log2_scale"]: point for point in measured["looks"][0]["points"]}
    compiled = {p["log2_scale"]: p for p in measured["looks"][0]["compiled_points"]}
    float32 = {run["seed"]: run["score"] for run in runs if run["scaling"] == FLOAT32}
    for row in rows:
        own = [run for run in runs if run["scaling"] == row["scaling"]]
        row["score_minus_float32"] = comparison.rounded(
            comparison.spread(run["score"] - float32[run["seed"]] for run in own)
        )
        if row["settings"]["kind"] != STATIC:
            continue
        log2_scale = row["settings"]["log2_scale"]
        row["place_in_first_window"] = place(log2_scale, first)
        row["place_in_common_window"] = place(log2_scale, common)
        row["is_advised"] = advised == 2.0**log2_scale
        row["predicted_error"] = predicted[log2_scale]["relative_error"]
        row["predicted_error_compiled"] = compiled[log2_scale]["relative_error"]
        row["error_at_first_step"] = comparison.rounded(
            comparison.spread(run["gradient"][0]["relative_error"] for run in own)
        )
    pictures = picture.save_all([claim_picture.draw(workload, measured, rows)], folder)
    results.write(
        {
            "table": rows,
            "first_window": first,
            "common_window": common,
            "advised_static_scale": advised,
            "windows": [
                {key: look[key] for key in ("step", "window", "why")} for look in measured["looks"]
            ],
            "pictures": [dataclasses.asdict(one) for one in pictures],
        }
    )
    print(f"\n{workload.name}, {workload.num_steps} steps, seeds {', '.join(map(str, seeds))}")
    print(comparison.shown(rows, workload.score_name))
    print(f"in all windows: {in_words(common)}\n\n{results.path}")


def windows(workload: Workload, seed: int, log2_scales: Sequence[int]) -> dict[str, Any]:
    """The windows over training in float32.

    Returns:
        `log2_scales`: those tried. `looks`: of each `step`, the `window` or null with `why`, the
        `advice`, `points`, the whole gradient's error by scale, and `compiled_points`, that of the
        step as XLA compiles it.
    """
    looks = []

    def look(step: int, model: keras.Model, batch: Batch) -> None:
        keras.utils.set_random_seed(seed)
        with policy.global_policy("mixed_float16"):
            half = workload.build()
        half.set_weights(model.get_weights())
        workload.compile(half, workload.optimizer())
        found = tfamp.gradient_fidelity(
            half, None, [batch], precisions=("mixed_float16",), log2_scales=log2_scales
        )
        told = found.to_json()
        looks.append(
            {
                "step": step,
                "window": told["window"],
                "why": told["why"],
                "advice": told["advice"],
                "points": [{key: point[key] for key in _POINT} for point in told["precisions"]],
                "compiled_points": errors_of_compiled_step(half, batch, log2_scales),
            }
        )

    training.run(workload, Scaling(FLOAT32), seed, look=look)
    found = {"workload": workload.name, "log2_scales": list(log2_scales), "looks": looks}
    return comparison.rounded(found)


def in_common(found: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The scales that are in every window that there is; None where no scale is."""
    there = [window for window in found if window is not None]
    if not there:
        return None
    low = max(window["log2_min"] for window in there)
    high = min(window["log2_max"] for window in there)
    is_open = all(window["is_open"] for window in there)
    return {"log2_min": low, "log2_max": high, "is_open": is_open} if low <= high else None


def place(log2_scale: int, window: Mapping[str, Any] | None) -> str | None:
    """Where a scale lies: `below`, `inside` or `above`; None without a window."""
    if window is None:
        return None
    if log2_scale < window["log2_min"]:
        return "below"
    return "above" if log2_scale > window["log2_max"] else "inside"


def in_words(window: Mapping[str, Any] | None) -> str:
    """A window as one reads it."""
    return f"2^{window['log2_min']} to 2^{window['log2_max']}" if window else "none"


COMMAND = options.command("claim", __doc__.split("\n\n", 2)[0], run)
main = COMMAND.main
