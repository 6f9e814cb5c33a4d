"""Each warning where it is due, and nowhere else."""

import json

import pytest
from made_runs import VERSIONS, rewrite, write_run

from tests.messages import says
from tfamp.reporting import caveats, comparison, runs, sources
from tfamp.run import records

ON_A_CPU = (
    "All comparisons: this ran on a CPU, which has no fast float16. Times and memory here do not "
    "show what a GPU gains; accuracy and loss scale do carry over."
)
ALL = "All comparisons"
GROUP = "resnet20 on fashion_mnist_mini, fit loop, with XLA, batch 64"
GPU = {"device": "GPU:0 (NVIDIA H200)"}


def read(logdir):
    found, passed_over = runs.find(logdir, logdir / "report")
    return comparison.compare(found, "float32"), passed_over


def warnings(logdir):
    return caveats.warnings(logdir, *read(logdir))


def write_pairs(logdir, seeds=3, **values):
    for seed in range(seeds):
        for policy in ("float32", "mixed_bfloat16"):
            write_run(logdir, policy=policy, seed=seed, **(GPU | values))


def test_a_clean_comparison_has_none(tmp_path):
    write_pairs(tmp_path)
    assert warnings(tmp_path) == []


def test_a_cpu(tmp_path):
    write_pairs(tmp_path, device="CPU:0 (EPYC)")
    assert warnings(tmp_path) == [ON_A_CPU]


def test_a_cpu_beside_a_gpu_is_named(tmp_path):
    write_pairs(tmp_path, device="CPU:0 (EPYC)")
    write_pairs(tmp_path / "gpu")
    assert warnings(tmp_path) == [ON_A_CPU.replace(ALL, GROUP)]


def test_a_baseline_in_tf32(tmp_path):
    write_pairs(tmp_path, tf32_in_effect=True)
    (warning,) = warnings(tmp_path)
    assert says(warning, ALL, "baseline float32 in TF32", "--notf32")


def test_too_few_seeds(tmp_path):
    write_pairs(tmp_path, seeds=2)
    (warning,) = warnings(tmp_path)
    assert says(warning, ALL, "fewer than 3 seeds", "mixed_bfloat16 (0, 1)")


def test_a_run_that_did_not_finish(tmp_path):
    write_pairs(tmp_path)
    folder = write_run(tmp_path, name="gone", policy="float16", **GPU)
    (folder / "result.json").unlink()
    (warning,) = warnings(tmp_path)
    assert says(warning, "gone", "did not finish", "no result.json")


def test_a_batch_that_differs(tmp_path):
    write_pairs(tmp_path)
    write_run(tmp_path, name="b", policy="mixed_float16", batch_size=128, **GPU)
    (found,) = warnings(tmp_path)
    assert says(found, "b", "not compared", "batch_size (128 here, 64 there)")


def test_what_is_true_of_some_comparisons_names_them(tmp_path):
    write_pairs(tmp_path, loop="fit")
    write_pairs(tmp_path, loop="custom", seeds=1)
    write_pairs(tmp_path / "smaller", batch_size=32, seeds=1)
    named = "resnet20 on fashion_mnist_mini, {} loop, with XLA, batch {}"
    named = f"{named.format('custom', 64)}; {named.format('fit', 32)}: "
    warning = warnings(tmp_path)[0]
    assert warning.startswith(named) and says(warning, "3 seeds", "mixed_bfloat16 (0)")


def test_compiling_inside_the_epoch(tmp_path):
    write_pairs(tmp_path, epochs=1)
    (warning,) = warnings(tmp_path)
    assert says(warning, ALL, "one epoch", "compiling")


def test_compiling_inside_a_window(tmp_path):
    write_pairs(tmp_path)
    path = tmp_path / "resnet20-fashion_mnist_mini-float32-fit-seed1" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[34][records.STEP_TIME] = 1001.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = warnings(tmp_path)
    assert says(found, f"step {rows[34]['step']}", "10 times")


@pytest.mark.parametrize(
    ("file", "changes", "warning"),
    [
        ("result.json", {"versions": VERSIONS | {"keras": "3.12.4"}},
         ("versions", "keras 3.12.4, 3.15.1")),
        ("config.json", {"git_revision": None}, ("revisions", f"unknown, {'a' * 40}")),
        ("config.json", {"git_revision": "a" * 40 + "-dirty"}, ("no commit",)),
    ],
)  # fmt: skip
def test_runs_of_different_make(file, changes, warning, tmp_path):
    write_pairs(tmp_path)
    rewrite(tmp_path / "resnet20-fashion_mnist_mini-float32-fit-seed0" / file, **changes)
    assert any(says(found, ALL, *warning) for found in warnings(tmp_path))


def test_a_sweep_with_cells_that_never_ran_and_several_jobs(tmp_path):
    write_pairs(tmp_path)
    cells = [path.name for path in sorted(tmp_path.iterdir())]
    sweep = {
        "cells": [*cells, "one", "two"],
        "jobs": 2,
        "command_line": ["/home/me/tfamp/sweep.py", "runs/a b"],
    }
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    at_a_time, not_run = warnings(tmp_path)
    assert says(at_a_time, "sweep", "2 cells", "times", "throughput")
    assert says(not_run, "sweep", "not run", "one, two")
    compared, _ = read(tmp_path)
    assert sources.collect(tmp_path, compared)["sweeps"] == ["python -m tfamp.sweep 'runs/a b'"]


def test_sweeps_side_by_side(tmp_path):
    for part in ("a", "b"):
        write_pairs(tmp_path / part, loop="fit" if part == "a" else "custom")
        cells = [path.name for path in sorted((tmp_path / part).iterdir())]
        sweep = {"cells": [*cells, *(["more"] if part == "b" else [])], "jobs": 1}
        (tmp_path / part / "sweep.json").write_text(json.dumps(sweep))
    (warning,) = warnings(tmp_path)
    assert says(warning, "sweep in b", "not run", "more.")


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"cells": 3, "jobs": "x"}', '{"jobs": null}'])
def test_a_broken_sweep_file_does_no_harm(text, tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "sweep.json").write_text(text)
    assert warnings(tmp_path) == []


@pytest.mark.parametrize(
    ("non_finite", "told"),
    [
        ({"first_step": 7, "what": "loss", "steps": 1, "weight": None},
         ("loss", "step 7")),
        ({"first_step": 1, "what": "gradient", "steps": 1200, "weight": "conv1/kernel"},
         ("gradient", "1,200 steps", "step 1", "weight conv1/kernel")),
        ({"first_step": 3, "what": "weight"}, ("weight", "step 3")),
    ],
)  # fmt: skip
def test_a_run_that_was_not_finite(non_finite, told, tmp_path):
    write_pairs(tmp_path)
    name = "resnet20-fashion_mnist_mini-mixed_bfloat16-fit-seed1"
    rewrite(tmp_path / name / "result.json", non_finite=non_finite)
    (warning,) = warnings(tmp_path)
    assert says(warning, name, *told)


@pytest.mark.parametrize("non_finite", [None, ..., "NaN"])
def test_a_run_that_was_finite_or_says_nothing(non_finite, tmp_path):
    write_pairs(tmp_path)
    name = "resnet20-fashion_mnist_mini-mixed_bfloat16-fit-seed1"
    rewrite(tmp_path / name / "result.json", non_finite=non_finite)
    assert warnings(tmp_path) == []


def test_a_scale_that_collapsed(tmp_path):
    for seed in range(3):
        for policy in ("float32", "mixed_float16"):
            folder = write_run(tmp_path, policy=policy, seed=seed, **GPU)
    result = json.loads((folder / "result.json").read_text())
    rewrite(folder / "result.json", loss_scale=result["loss_scale"] | {"collapsed_at": 44})
    (warning,) = warnings(tmp_path)
    assert says(warning, folder.name, "loss scale", "collapsed", "step 44")
