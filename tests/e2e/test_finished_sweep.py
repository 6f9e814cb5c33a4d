"""A real sweep, killed in its middle and begun again: its runs, its report, its TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from short_runs import TINY
from tensorboard_server import serve, session_groups, wait_until_loaded

from tests.messages import says
from tfamp.run import records

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS, BATCH, LOG_EVERY = 40, 4, 50, 2
# Student's t at 97.5% and one degree of freedom.
T1 = 12.706204736174694
# Figures that can be 0; the others are averaged by their logarithms.
SIGNED = ("validation_accuracy", "validation_loss", "train_loss")
SCALAR_TAGS = {"train/loss", "grad/global_norm", "time/step_ms", "memory/device_peak_bytes"}
FLOAT16_TAGS = {
    "scale/value",
    "scale/log2",
    "scale/skipped_total",
    "scale/skipped_non_finite_loss",
    "grad/zero_fraction",
}


@dataclasses.dataclass
class Sweep:
    """What the two processes left.

    Attributes:
        logdir: Its folder.
        begun: The cells that the first process began; it was killed in the last of them.
        before: Modification times of the files of the completed ones when it was killed.
        killed_at: When the killed cell's config.json was written.
        begun_again: The cells that the second process ran.
        output: What the second process said.
        returncode: How it ended.
    """

    logdir: Path
    begun: list[str]
    before: dict[str, dict[Path, int]]
    killed_at: int
    begun_again: list[str]
    output: str
    returncode: int


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """2 policies x 2 loops x 2 seeds, killed in the fourth cell and begun again."""
    logdir = tmp_path_factory.mktemp("sweep")
    command = [sys.executable, "-m", "tfamp.sweep", str(logdir), f"--models={TINY}"]
    command += ["--policies=float32,mixed_float16", "--loops=fit,custom", "--seeds=0,1", "--"]
    command += [f"--epochs={EPOCHS}", f"--steps_per_epoch={STEPS}", f"--batch_size={BATCH}"]
    command += [f"--log_every={LOG_EVERY}", "--nojit_compile", "--nosave_model"]
    name = re.compile(r"\[\d/8\] (\S+) \(")

    def begin():
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )

    process, begun = begin(), []
    try:
        for line in process.stdout:
            begun += name.findall(line)
            if len(begun) == 4 and f"Epoch 1/{EPOCHS}" in line:
                break
    finally:
        process.kill()
        process.communicate()
    assert len(begun) == 4
    assert not (logdir / begun[3] / "result.json").exists()
    before = {run: files(logdir / run) for run in begun[:3]}
    killed_at = (logdir / begun[3] / "config.json").stat().st_mtime_ns
    process = begin()
    output, _ = process.communicate()
    return Sweep(logdir, begun, before, killed_at, name.findall(output), output, process.returncode)


@pytest.fixture(scope="module")
def report(sweep):
    """The report.json that the sweep ended with."""
    return json.loads((sweep.logdir / "report" / "report.json").read_text())


def test_it_goes_on_where_it_stopped(sweep):
    assert sweep.returncode == 0, sweep.output
    assert says(sweep.output, "8 cells", "3 of them finished", "5 to run", "8 of 8 cells")
    assert sweep.begun_again[0] == sweep.begun[3]
    note = json.loads((sweep.logdir / "sweep.json").read_text())
    assert sweep.begun[:3] + sweep.begun_again == note["cells"]
    assert {run: files(sweep.logdir / run) for run in sweep.begun[:3]} == sweep.before
    assert (sweep.logdir / sweep.begun[3] / "config.json").stat().st_mtime_ns > sweep.killed_at
    for cell in note["cells"]:
        result = json.loads((sweep.logdir / cell / "result.json").read_text())
        assert result["status"] == "completed"
        config = json.loads((sweep.logdir / cell / "config.json").read_text())
        # What the trainer was given, and what it decided.
        assert config["asked"]["epochs"] == EPOCHS and config["asked"]["jit_compile"] is False
        assert "optimizer" not in config["asked"] and config["config"]["optimizer"] == "sgd"


def test_the_report_is_complete(sweep, report):
    assert [group["settings"]["loop"] for group in report["groups"]] == ["custom", "fit"]
    for group in report["groups"]:
        assert [variant["label"] for variant in group["variants"]] == ["float32", "mixed_float16"]
        assert [variant["seeds"] for variant in group["variants"]] == [[0, 1], [0, 1]]
        assert len(group["variants"][1]["verdict"]) == 3
        for sentence in group["variants"][1]["verdict"]:
            assert sentence in sweep.output
    assert report["passed_over"] == report["unpaired"] == []
    folder = sweep.logdir / "report"
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for run in sweep.begun + sweep.begun_again:
        assert run in page
        assert run.replace("_", "") in text.replace("\\", "").replace("_", "")
    assert len(list(folder.rglob("*.png"))) >= 8
    warned = " ".join(report["warnings"])
    assert "this ran on a CPU" in warned and "mixed_float16 (0, 1)" in warned


def rows_of(folder):
    """The rows, by json alone."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def quantile(windows, share):
    """Of each step, where a window's steps all took its mean."""
    times = sorted(ms for ms, steps in windows for _ in range(steps))
    return times[math.ceil(share * len(times)) - 1]


def recomputed(folder):
    """A run's figures from its rows alone, by other means than tfamp's."""
    rows = rows_of(folder)
    steps = [row for row in rows if row["kind"] == "step"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [row["step"] for row in steps] == list(range(1, EPOCHS * STEPS + 1))
    marks = [row for row in steps if "time/step_ms" in row]
    # The first step of all is compiled and in no window.
    starts = [1, *(row["step"] for row in marks)]
    windows = [
        (row["time/step_ms"], row["step"] - at) for at, row in zip(starts, marks, strict=False)
    ]
    figures = {
        "step_time_ms": quantile(windows, 0.5),
        "step_time_p95_ms": quantile(windows, 0.95),
        "examples_per_sec": 1e3 * BATCH / quantile(windows, 0.5),
        "epoch_time_sec": statistics.median(row["time/epoch_sec"] for row in epochs[1:]),
        "device_peak_bytes": max(row["memory/device_peak_bytes"] for row in epochs),
        "validation_accuracy": epochs[-1]["validation/accuracy"],
        "validation_loss": epochs[-1]["validation/loss"],
        "train_loss": epochs[-1]["train/loss"],
    }
    return figures, steps


def interval(values):
    """Mean and 95% interval of two values."""
    a, b = values
    reach = T1 * abs(a - b) / 2
    return (a + b) / 2, (a + b) / 2 - reach, (a + b) / 2 + reach


def logarithmic(values):
    """The same of their logarithms."""
    return tuple(math.exp(value) for value in interval([math.log(value) for value in values]))


def angular(values):
    """Of accuracies: the mean, and the interval of their angles turned back."""
    angles = interval([math.asin(value**0.5) for value in values])
    low, high = (math.sin(min(max(angle, 0), math.pi / 2)) ** 2 for angle in angles[1:])
    return interval(values)[0], low, high


def expected_of(name, values):
    if name == "validation_accuracy":
        return angular(values)
    return interval(values) if name in SIGNED else logarithmic(values)


def close(found, expected):
    measured = (found["value"], found["low"], found["high"])
    assert measured == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found["n"] == 2


def test_its_numbers_are_those_of_the_rows(sweep, report):
    for group in report["groups"]:
        known = {}
        for variant in group["variants"]:
            runs = [recomputed(sweep.logdir / run["directory"]) for run in variant["runs"]]
            known[variant["label"]] = [figures for figures, _ in runs]
            for run, (figures, steps) in zip(variant["runs"], runs, strict=True):
                told = run["figures"]
                assert {name: told[name] for name in figures} == pytest.approx(figures, rel=1e-9)
                check_float16(run, steps)
            for name in runs[0][0]:
                values = [figures[name] for figures, _ in runs]
                expected = expected_of(name, values)
                close(variant["figures"][name], expected)
        base, mixed = known["float32"], known["mixed_float16"]
        comparison = group["variants"][1]["comparison"]

        def ratio(tops, bottoms, name):
            pairs = zip(tops, bottoms, strict=True)
            return logarithmic([a[name] / b[name] for a, b in pairs])

        close(comparison["step_speedup"], ratio(base, mixed, "step_time_ms"))
        close(comparison["epoch_speedup"], ratio(base, mixed, "epoch_time_sec"))
        close(comparison["memory_ratio"], ratio(mixed, base, "device_peak_bytes"))
        name = "validation_accuracy"
        differences = [a[name] - b[name] for a, b in zip(mixed, base, strict=True)]
        close(comparison["accuracy_difference"], interval(differences))


def check_float16(run, steps):
    if "mixed_float16" not in run["directory"]:
        assert run["loss_scale"] is None and run["gradients"] is None
        return
    story, gradients = run["loss_scale"], run["gradients"]
    scales = [row["scale/value"] for row in steps]
    assert (story["initial"], story["settled"]) == (2.0**15, statistics.mode(scales[80:]))
    assert story["skipped"] == steps[-1]["scale/skipped_total"]
    zeros = [row["grad/zero_fraction"] for row in steps]
    assert gradients["zero_share"] == pytest.approx(statistics.fmean(zeros))
    assert 0 < gradients["zero_share"] < 1
    assert gradients["steps"] == len(steps)


@pytest.fixture(scope="module")
def ask(sweep):
    """Asks TensorBoard on the sweep's folder."""
    names = sweep.begun[:3] + sweep.begun_again
    with serve(sweep.logdir) as get:
        wait_until_loaded(get, names, last_step=EPOCHS * STEPS)
        yield get


def test_tensorboard_has_every_run_and_its_tags(sweep, ask):
    tags = {run: set(found) for run, found in ask("scalars/tags").items()}
    cells = sweep.begun[:3] + sweep.begun_again
    assert set(tags) == {f"{cell}/{part}" for cell in cells for part in ("train", "validation")}
    for cell in cells:
        assert tags[f"{cell}/train"] >= SCALAR_TAGS
        assert bool(tags[f"{cell}/train"] & FLOAT16_TAGS) == ("mixed_float16" in cell)
        assert tags[f"{cell}/validation"] == {"validation/loss", "validation/accuracy"}


def test_tensorboard_compares_the_policies_in_the_hparams_tab(report, ask):
    found = {}
    for group in session_groups(ask):
        chosen = group["hparams"]
        assert (chosen["model"], chosen["dataset"]) == (TINY, "fashion_mnist_mini")
        values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        key = (chosen["policy"], chosen["loss_scale"], chosen["loop"], chosen["seed"])
        found[key] = values["hparams/validation_accuracy"]
    scales = {"float32": "not used", "mixed_float16": "dynamic"}
    assert found == {
        (
            variant["label"],
            scales[variant["label"]],
            group["settings"]["loop"],
            run["seed"],
        ): pytest.approx(run["figures"]["validation_accuracy"], rel=1e-6)
        for group in report["groups"]
        for variant in group["variants"]
        for run in variant["runs"]
    }


def test_tensorboard_shows_every_policy_in_the_custom_scalars_dashboard(sweep, ask):
    layout = ask("custom_scalars/layout")
    titles = [category["title"] for category in layout["category"]]
    assert titles == ["Did it learn", "What loss scaling did", "What it cost"]
    patterns = {
        pattern
        for category in layout["category"]
        for chart in category["chart"]
        for pattern in chart["multiline"]["tag"]
    }
    for pattern in patterns:
        part = "validation" if pattern.startswith("^validation") else "train"
        for cell in sweep.begun[:3] + sweep.begun_again:
            answer = ask("custom_scalars/scalars", run=f"{cell}/{part}", tag=pattern)
            is_there = any(answer["tag_to_events"].values())
            only_float16 = any(tag in pattern for tag in FLOAT16_TAGS)
            if records.UNDERFLOW in pattern:
                assert not is_there, "No cell has an underflow meter."
            else:
                assert is_there == ("mixed_float16" in cell or not only_float16), (cell, pattern)
