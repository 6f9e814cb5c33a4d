"""Where the lack of a loss scale makes training fail outright, why, and that a scale cures it.

scripts/python.sh -m experiments.loss_scaling failure

The detector of `detector.py`, its loss weighted 0.1 as one of several losses of a model is. Three
seeds in float32, in mixed_float16 without a loss scale, and with tfamp's dynamic scale as it is by
default. Every 60 steps the gradients with respect to each layer's outputs are held against
float64's at the same weights and batch: the share that float16 makes zero. `by_the_meter` is what a
script sees without a float64 reference: its first steps under
`tfamp.PrecisionTelemetry(underflow_every=...)`, whose meter takes for lost what is not zero at 2^8
times the scale. What is lost there too it cannot tell from a zero.

What it is to learn nothing is told beside it: what the head alone learns, in float32, on untrained
convolutions; what the untrained detector finds; and what one finds that says the same of every
scene, with the least loss that there is to saying the same of every place too. Written to
failure.json, failure.png and underflow_by_layer.png.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfamp
from experiments.loss_scaling import comparison, failure_pictures, options, scenes
from experiments.loss_scaling.comparison import Cell
from experiments.loss_scaling.results_file import ResultsFile
from experiments.loss_scaling.scalings import DYNAMIC, FLOAT32, NONE, Scaling
from experiments.loss_scaling.workloads import Detector
from tfamp.precision import policy
from tfamp.reporting.figures import picture
from tfamp.run.command import Given
from tfamp.run.scale_rules import ScaleRules

FILE = "failure.json"
LOSS_WEIGHT = 0.1
METER_EVERY, METER_LOOKS = 20, 3
SEEDS = (0, 1, 2)
SCALINGS = (
    Scaling(FLOAT32),
    Scaling(NONE),
    Scaling(DYNAMIC, round(np.log2(ScaleRules.initial_scale))),
)


def run(given: Given, folder: Path) -> None:
    """Makes the runs, what they say together, and the pictures."""
    workload = Detector(loss_weight=LOSS_WEIGHT, num_steps=240, look_every=60)
    seeds: Sequence[int] = SEEDS
    if given["quick"]:
        workload, seeds = dataclasses.replace(workload, **Detector.QUICK), SEEDS[:1]
    head_alone = dataclasses.replace(workload, is_frozen=True)
    cells = [Cell(workload, scaling, seed) for seed in seeds for scaling in SCALINGS]
    cells += [Cell(head_alone, SCALINGS[0], seed) for seed in seeds]
    settings = {"workloads": [workload.settings(), head_alone.settings()]}
    results = ResultsFile(folder / FILE, "failure", settings, given)
    runs = comparison.runs_of(cells, results, keeps_layers=True)
    rows = comparison.table(cells, runs)
    chance = {
        "untrained": comparison.rounded(comparison.spread(untrained(workload, s) for s in seeds)),
        "constant": comparison.rounded(constant(workload)),
        "constant_loss": comparison.rounded(constant_loss(workload)),
    }
    underflow = {
        scaling.name: by_layer([r for r in runs if r["scaling"] == scaling.name])
        for scaling in SCALINGS
        if scaling.policy != "float32"
    }
    metered = {
        scaling.name: results.run(
            f"by the meter, {scaling.name}", functools.partial(by_the_meter, workload, scaling)
        )
        for scaling in SCALINGS
        if scaling.policy != "float32"
    }
    titles = {scaling.name: scaling.title for scaling in SCALINGS}
    pictures = picture.save_all(
        [
            failure_pictures.losses(workload, titles, runs, chance["constant_loss"]),
            failure_pictures.underflow(workload, titles, underflow),
        ],
        folder,
    )
    results.write(
        {
            "table": rows,
            "chance": chance,
            "underflow_by_layer": underflow,
            "by_the_meter": metered,
            "pictures": [dataclasses.asdict(one) for one in pictures],
        }
    )
    told_seeds = ", ".join(map(str, seeds))
    print(f"\n{workload.name}, {workload.num_steps} steps, seeds {told_seeds}")
    print(comparison.shown(rows, workload.score_name))
    print(
        f"by chance: {chance['constant']:.1%} {workload.score_name} by the average scene, "
        f"{chance['untrained']['mean']:.1%} untrained"
    )
    print(f"least loss of saying the same of every place: {chance['constant_loss']:.3g}")
    for name, found in underflow.items():
        print(f"\nzero in float16, not in float64, of activation gradients, {name}:")
        for path, shares in found["layers"].items():
            print(f"  {path:14} {'  '.join(map(_share, shares))}")
    for name, found in metered.items():
        print(f"\nzero by the meter, and of these not at 2^8 times the scale, {name}:")
        for path, layer in found["layers"].items():
            told = zip(layer["zero_fraction"], layer["lost_fraction"], strict=True)
            shares = "  ".join(f"{_share(zero)} {_share(lost)}" for zero, lost in told)
            print(f"  {path:14} {shares}")
    print(f"\n{results.path}")


def _share(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.1%}"


def by_layer(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of each layer's activation gradients that became zero, over training.

    Args:
        runs: Of one scaling, a run a seed.

    Returns:
        `steps`, taken before each look; `layers`: by path, in the model's order, the mean over the
        seeds at each look, null where no seed had finite weights; `all` likewise over all entries.
    """
    looks = max((run["gradient"] for run in runs), key=len)
    steps = [look["step"] for look in looks]

    def mean(values: list[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return float(np.mean(there)) if there else None

    def over_training(read: Any) -> list[float | None]:
        return [
            mean(
                [
                    read(look)
                    for run in runs
                    for look in run["gradient"]
                    if look["step"] == step and look["underflow_by_layer"] is not None
                ]
            )
            for step in steps
        ]

    layers = {
        path: over_training(lambda look, path=path: look["underflow_by_layer"][path])
        for path in looks[0]["underflow_by_layer"]
    }
    found = {"steps": steps, "all": over_training(lambda look: look["underflow"]), "layers": layers}
    return comparison.rounded(found)


def by_the_meter(workload: Detector, scaling: Scaling, seed: int = 0) -> dict[str, Any]:
    """What the live underflow meter tells of the first steps of `fit`.

    Returns:
        `steps`, from 1; `layers`: by path and step the share of the gradient with respect to its
        outputs that is zero, `zero_fraction`, and that is zero and is not at 2^8 times the scale,
        `lost_fraction`, null where that cannot be told.
    """
    keras.utils.set_random_seed(seed)
    with policy.global_policy(scaling.policy):
        model = workload.build()
    steps = min(workload.num_steps, METER_LOOKS * METER_EVERY)
    every = min(METER_EVERY, steps)
    workload.compile(model, scaling.optimizer(workload.optimizer(), steps))
    first = next(workload.batches(seed))
    data = tf.data.Dataset.from_generator(
        functools.partial(workload.batches, seed),
        output_signature=tuple(tf.TensorSpec(each.shape, each.dtype) for each in first),
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # That nothing scales the loss is what is shown here.
        warnings.filterwarnings("ignore", "These layers compute in float16 and nothing scales")
        telemetry = tfamp.PrecisionTelemetry(
            folder, underflow_every=every, underflow_of="activations"
        )
        model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[telemetry])
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "underflow"]
    paths = [path for path in rows[0]["layers"] if path.startswith("convolution")]
    layers = {
        path: {
            "zero_fraction": [
                row["layers"][path]["zeros"] / row["layers"][path]["entries"] for row in rows
            ],
            "lost_fraction": [row["layers"][path].get("lost_fraction") for row in rows],
        }
        for path in paths
    }
    found = {"steps": [row["step"] for row in rows], "layers": layers}
    return comparison.rounded(found)


def untrained(workload: Detector, seed: int) -> float:
    """What the detector finds before its first step."""
    keras.utils.set_random_seed(seed)
    model = workload.build()
    workload.compile(model, workload.optimizer())
    return workload.score(model)


def constant(workload: Detector, num_scenes: int = 2000) -> float:
    """What is found by saying of every scene what is true of the average one."""
    training, validation = scenes.garments()
    average = scenes.targets(scenes.draw(training, num_scenes, (0, 0))).mean(0, keepdims=True)
    drawn = scenes.draw(validation, workload.num_validation, workload.validation_seed)
    return scenes.share_found(np.repeat(average, workload.num_validation, axis=0), drawn)


def constant_loss(workload: Detector, num_scenes: int = 300) -> float:
    """The least loss of one probability for all places, classes and scenes."""
    training, _ = scenes.garments()
    told = scenes.targets(scenes.draw(training, num_scenes, (0, 0)))
    loss = workload.loss()

    def at(logit: float) -> float:
        return float(loss(told, np.full_like(told, logit)))

    return workload.loss_weight * min(at(logit) for logit in np.arange(-6.0, 0.0, 0.05))


COMMAND = options.command("failure", __doc__.split("\n\n", 2)[0], run)
main = COMMAND.main
