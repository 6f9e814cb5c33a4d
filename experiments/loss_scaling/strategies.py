"""Ways to choose a loss scale, compared: same weights at the start, same batches.

scripts/python.sh -m experiments.loss_scaling strategies

No scale, static ones, dynamic ones from three initial scales with two growth intervals, one with
hysteresis, and one that starts where the advisor says, each on two workloads: ResNet-20, whose
gradients float16 holds without help, and the detector, whose gradients it does not.

Of each: skipped steps, steps until the scale has settled (`training.scale_over_time` says when),
the relative error of mixed_float16's gradient against float64's at the run's own weights and next
batch, operation by operation, averaged over training, and how well the model does at the end.
Written to strategies.json, and the scales over time to scale_over_time.png.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from experiments.loss_scaling import comparison, options, scale_picture
from experiments.loss_scaling.comparison import Cell
from experiments.loss_scaling.results_file import ResultsFile
from experiments.loss_scaling.scalings import AUTO, DYNAMIC, FLOAT32, NONE, Scaling, statics
from experiments.loss_scaling.workloads import Classifier, Detector, Workload
from tfamp.reporting.figures import picture
from tfamp.run.command import Given

FILE = "strategies.json"
GROWTH_STEPS = (200, 2000)
INITIAL_LOG2_SCALES = (8, 15, 24)
SEEDS = (0,)

SCALINGS = (
    Scaling(FLOAT32),
    Scaling(NONE),
    *statics(range(0, 21, 4)),
    *(Scaling(DYNAMIC, start, growth) for growth in GROWTH_STEPS for start in INITIAL_LOG2_SCALES),
    Scaling(DYNAMIC, max(INITIAL_LOG2_SCALES), min(GROWTH_STEPS), hysteresis=2),
    Scaling(AUTO),
)


def run(given: Given, folder: Path) -> None:
    """Makes the runs, the table and the picture."""
    workloads: Sequence[Workload] = (Detector(), Classifier())
    scalings: Sequence[Scaling] = SCALINGS
    if given["quick"]:
        workloads = (dataclasses.replace(Detector(), **Detector.QUICK),)
        scalings = (SCALINGS[1], SCALINGS[2], SCALINGS[-2])
    cells = [
        Cell(workload, scaling, seed)
        for workload in workloads
        for scaling in scalings
        for seed in SEEDS
    ]
    settings = {"workloads": [workload.settings() for workload in workloads]}
    results = ResultsFile(folder / FILE, "strategies", settings, given)
    rows = comparison.table(cells, comparison.runs_of(cells, results))
    panels = []
    for workload in workloads:
        of_workload = [cell for cell in cells if cell.workload is workload]
        title = f"{workload.name}, seed {SEEDS[0]}"
        panels.append(
            scale_picture.Panel(
                title,
                [(c.scaling, results.runs[c.name]) for c in of_workload if c.seed == SEEDS[0]],
            )
        )
        print(f"\n{workload.name}, {workload.num_steps} steps, seeds {', '.join(map(str, SEEDS))}")
        of_workload_rows = [row for row in rows if row["workload"] == workload.name]
        print(comparison.shown(of_workload_rows, workload.score_name))
    pictures = picture.save_all([scale_picture.draw(panels)], folder)
    results.write({"table": rows, "pictures": [dataclasses.asdict(one) for one in pictures]})
    print(f"\n{results.path}")


COMMAND = options.command("strategies", __doc__.split("\n\n", 2)[0], run)
main = COMMAND.main
