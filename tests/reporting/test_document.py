"""report.json against numbers worked out again from the rows, by other means."""

import itertools
import json
import math
import statistics

import pytest
from made_runs import write_run, write_sweep

from tfamp.reporting import comparison, document, runs

# Student's t at 97.5% and two degrees of freedom.
T2 = 4.302652729911275
SIGNED = ("validation_accuracy", "validation_loss", "train_loss")


def build(logdir):
    found, passed_over = runs.find(logdir, logdir / "report")
    compared = comparison.compare(found, "float32")
    return document.build(logdir, "float32", compared, passed_over)


def raw_rows(folder):
    """The rows with no help from tfamp."""
    words = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        yield {name: words.get(value, value) if isinstance(value, str) else value
               for name, value in json.loads(line).items()}  # fmt: skip


def interval(values):
    n = len(values)
    centre = sum(values) / n
    if n < 2:
        return centre, None, None
    assert n == 3
    reach = T2 * statistics.stdev(values) / math.sqrt(n)
    return centre, centre - reach, centre + reach


def logarithmic(values):
    return [math.exp(value) for value in interval([math.log(value) for value in values])]


def angular(values):
    """Of accuracies: the mean, and the interval of their angles turned back."""
    angles = interval([math.asin(value**0.5) for value in values])
    low, high = (math.sin(min(max(angle, 0), math.pi / 2)) ** 2 for angle in angles[1:])
    return interval(values)[0], low, high


def expected_of(name, values):
    if name == "validation_accuracy":
        return angular(values)
    return interval(values) if name in SIGNED else logarithmic(values)


def close(found, value, low, high, n):
    assert found["value"] == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert found["low"] == pytest.approx(low, rel=1e-9, abs=1e-12)
    assert found["high"] == pytest.approx(high, rel=1e-9, abs=1e-12)
    assert found["n"] == n


def recomputed(folder):
    """A run's figures from its rows alone."""
    rows = list(raw_rows(folder))
    epochs = [row for row in rows if row["kind"] == "epoch"]
    steps = [row for row in rows if row["kind"] == "step"]
    windows = sorted(row["time/step_ms"] for row in steps if "time/step_ms" in row)
    figures = {
        "step_time_ms": windows[(len(windows) - 1) // 2],
        "step_time_p95_ms": windows[math.ceil(0.95 * len(windows)) - 1],
        "epoch_time_sec": statistics.median(row["time/epoch_sec"] for row in epochs[1:]),
        "device_peak_bytes": max(row["memory/device_peak_bytes"] for row in epochs),
        "validation_accuracy": epochs[-1]["validation/accuracy"],
        "validation_loss": epochs[-1]["validation/loss"],
        "train_loss": epochs[-1]["train/loss"],
    }
    return figures, steps


def test_the_numbers_are_those_of_the_rows(tmp_path):
    write_sweep(tmp_path)
    found = build(tmp_path)
    assert [group["settings"]["loop"] for group in found["groups"]] == ["custom", "fit"]
    for group in found["groups"]:
        base = {run["seed"]: recomputed(tmp_path / run["directory"])[0]
                for run in group["variants"][0]["runs"]}  # fmt: skip
        assert len(group["variants"]) == 4
        for variant in group["variants"]:
            mine = {}
            for run in variant["runs"]:
                figures, steps = recomputed(tmp_path / run["directory"])
                mine[run["seed"]] = figures
                for name, value in figures.items():
                    assert run["figures"][name] == pytest.approx(value), name
                check_scale(run, steps)
            for name in next(iter(mine.values())):
                values = [figures[name] for figures in mine.values()]
                close(variant["figures"][name], *expected_of(name, values), 3)
            if variant["is_baseline"]:
                assert variant["comparison"] is None
                continue
            check_comparison(variant["comparison"], mine, base)


def check_comparison(found, mine, base):
    seeds = sorted(mine)
    assert found["seeds"] == seeds

    def logs(top, bottom, name):
        return logarithmic([top[seed][name] / bottom[seed][name] for seed in seeds])

    close(found["step_speedup"], *logs(base, mine, "step_time_ms"), 3)
    close(found["epoch_speedup"], *logs(base, mine, "epoch_time_sec"), 3)
    close(found["memory_ratio"], *logs(mine, base, "device_peak_bytes"), 3)
    name = "validation_accuracy"
    differences = [mine[seed][name] - base[seed][name] for seed in seeds]
    close(found["accuracy_difference"], *interval(differences), 3)


def check_scale(run, steps):
    scales = [row["scale/value"] for row in steps if "scale/value" in row]
    if not scales:
        assert run["loss_scale"] is None
        return
    totals = [row["scale/skipped_total"] for row in steps]
    story = run["loss_scale"]
    assert story["initial"] == scales[0]
    assert story["skipped"] == totals[-1]
    assert story["growths"] == sum(b > a for a, b in itertools.pairwise(scales))
    first = next((row["step"] for row in steps if row["scale/skipped_total"]), None)
    assert story["first_overflow_step"] == first
    late = scales[len(scales) // 2 :]
    assert story["settled"] == statistics.mode(late)


def test_skips_and_scales_are_gathered(tmp_path):
    for seed, skips in enumerate([(3,), (), (4, 5)]):
        scales = [2.0**15] * 59 + [2.0 ** (15 - seed)]
        write_run(tmp_path, policy="mixed_float16", seed=seed, skips=skips, scales=scales)
    write_run(tmp_path, policy="float32")
    (group,) = build(tmp_path)["groups"]
    float32, mixed = group["variants"]
    assert mixed["skipped_steps"] == {"total": 3, "of": 180, "per_run": [1, 0, 2]}
    assert mixed["final_scale"] == {"min": 2.0**13, "max": 2.0**15}
    assert float32["skipped_steps"] is None and float32["final_scale"] is None


def test_it_is_json_whatever_the_runs_hold(tmp_path):
    write_run(tmp_path, policy="float32")
    write_run(tmp_path, policy="mixed_float16", loss_scale="none", non_finite_steps=(2,), peak=None)
    found = json.loads(json.dumps(build(tmp_path), allow_nan=False), parse_constant=pytest.fail)
    broken = found["groups"][0]["variants"][1]
    assert broken["figures"]["train_loss"]["value"] == "NaN"
    assert broken["figures"]["device_peak_bytes"] is None
    assert broken["runs"][0]["gradients"]["last_loss"] == "NaN"
    assert found["schema_version"] == 1


def test_names_for_files_and_anchors_are_unique(tmp_path):
    for rate in (0.1, 0.2):
        write_run(tmp_path, name=f"r{rate}", policy="float32", learning_rate=rate)
    ids = [group["id"] for group in build(tmp_path)["groups"]]
    first = "resnet20-on-fashion_mnist_mini-fit-loop-with-xla-batch-64"
    assert ids == [first, f"{first}-2"]


def test_nothing_but_broken_runs(tmp_path):
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "config.json").write_text("{")
    found = build(tmp_path)
    assert found["groups"] == []
    assert found["passed_over"] == [
        {
            "directory": "gone",
            "why": "There is no result.json: the run did not finish.",
            "is_unfinished": True,
        }
    ]
