"""The committed results: what the pages tell stands in the numbers beside them."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from tfamp.reporting import estimates

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "experiments" / "amp_vs_float32.md"


def table_rows(text):
    return [line for line in text.splitlines() if re.match(r"\| (?!---)", line)]


def test_the_table_of_the_page_is_the_reports():
    told = table_rows(PAGE.read_text())
    rows = set(table_rows((RESULTS / "amp_vs_float32" / "report.md").read_text()))
    judged = [row for row in told if "×" in row]  # noqa: RUF001
    assert len(judged) == 9
    assert set(judged) <= rows


def test_the_report_is_of_all_the_cells():
    report = json.loads((RESULTS / "amp_vs_float32" / "report.json").read_text())
    assert report["passed_over"] == report["unpaired"] == []
    told = {
        (group["settings"]["model"], group["settings"]["loop"]): {
            variant["label"]: variant["seeds"] for variant in group["variants"]
        }
        for group in report["groups"]
    }
    labels = (
        "float32",
        "mixed_bfloat16",
        "mixed_float16",
        "mixed_float16 without loss scaling",
    )
    cells = (("resnet20", "fit"), ("resnet20", "custom"), ("vit_tiny", "fit"))
    assert told == {cell: {label: [0, 1, 2] for label in labels} for cell in cells}


def test_the_reports_means_and_intervals_are_those_of_its_runs():
    report = json.loads((RESULTS / "amp_vs_float32" / "report.json").read_text())
    for variant in (variant for group in report["groups"] for variant in group["variants"]):
        for name, told in variant["figures"].items():
            mean = estimates.mean_share if name == "validation_accuracy" else estimates.mean
            if not name.endswith(("accuracy", "loss")):
                mean = estimates.geometric_mean
            found = mean([run["figures"][name] for run in variant["runs"]])
            assert told == pytest.approx(dataclasses.asdict(found)), (variant["label"], name)


@pytest.mark.parametrize(
    "path",
    [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "experiments").rglob("*.md"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_and_pictures_are_there(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RESULTS.rglob("*")) if path.suffix in (".json", ".md", ".html")],
    ids=lambda path: path.name,
)
def test_no_path_of_a_machine_is_in_a_result(path):
    assert not re.search(r"(?<![\w.])/(work|home|tmp|root|Users)/", path.read_text())


def test_the_page_of_bad_batches_tells_its_results():
    results = json.loads((RESULTS / "bad_batches.json").read_text())["results"]
    names = {
        "tfamp": "tfamp",
        "tfamp_kept": "tfamp, averages kept",
        "keras": "Keras",
        "torch": "PyTorch",
    }
    expected = []
    for stream, ways in results.items():
        for way, name in names.items():
            found, loss = ways[way], ways[way]["validation_loss"]
            cells = (
                stream,
                name,
                f"{found['applied']:,} of {ways['steps']:,}",
                f"2^{math.log2(found['scale']):g}",
                loss if loss == "NaN" else f"{loss:.4f}",
                f"{100 * found['validation_accuracy']:.2f} %",
            )
            expected.append(f"| {' | '.join(cells)} |")
    told = table_rows((ROOT / "experiments" / "bad_batches.md").read_text())
    assert told[1:] == expected
