"""Groups of made runs, to be drawn."""

from __future__ import annotations

import json

from tests.reporting.made_runs import write_run
from tfamp.reporting import comparison, runs


def group_of(logdir):
    found, passed_over = runs.find(logdir, logdir / "report")
    assert passed_over == []
    (group,) = comparison.compare(found, "float32").groups
    return group


def without(folder, *names):
    """Takes figures out of a run's rows."""
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{n: v for n, v in row.items() if n not in names} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))


def write_three_seeds(logdir):
    for seed in range(3):
        write_run(logdir, policy="float32", seed=seed, step_ms=100.0, accuracy=0.8)
        write_run(
            logdir,
            policy="mixed_float16",
            seed=seed,
            step_ms=50.0 + seed,
            accuracy=0.7 + 0.05 * seed,
            scales=[2.0**16] * 4 + [2.0**15] * 56,
            skips=(4,),
        )
    return group_of(logdir)
