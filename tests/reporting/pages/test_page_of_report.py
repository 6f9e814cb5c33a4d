"""What the pages say, against the document's numbers; what comes from disk stays text."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import math
import re

import jinja2
import pytest
from matplotlib.image import imread
from read_pages import Reader, markdown_rows, undrawn

from tests.reporting.made_runs import rewrite, write_run, write_sweep
from tfamp import report
from tfamp.reporting import comparison, document, runs
from tfamp.reporting.figures import group_pictures
from tfamp.reporting.pages import formatting, page_files, report_page, scale_tables
from tfamp.reporting.pages.markdown import escape

JUDGED = ("step_speedup", "memory_ratio", "accuracy_difference")
HOSTILE = "<img src=x onerror=alert(1)>|a|`$b$` [c](http://evil.example) *d*"


def written(logdir, baseline="float32"):
    """Writes a report; its document, its page and its Markdown."""
    assert report.main([str(logdir), f"--baseline={baseline}"]) == 0
    out = logdir / "report"
    content = json.loads((out / "report.json").read_text())
    return content, Reader((out / "report.html").read_text()), (out / "report.md").read_text()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("sweep")
    write_sweep(logdir)
    return logdir, *written(logdir)


def test_the_verdicts_are_the_documents(sweep):
    _, content, html, markdown = sweep
    sentences = [s for g in content["groups"] for v in g["variants"] for s in v["verdict"] or []]
    assert len(sentences) == 2 * 3 * 3
    # Once, in the table; the sentences are the console's and report.json's.
    for sentence in sentences:
        assert sentence not in html.text and escape(sentence) not in markdown
    rows = [row for row in html.rows if row and row[0].strip().startswith("mixed_")]
    told = [" ".join(" ".join(row).split()) for row in rows[: len(sentences) // 3]]
    for row, variant in zip(
        told, [v for g in content["groups"] for v in g["variants"][1:]], strict=True
    ):
        words = [variant["comparison"][name]["verdict"] for name in JUDGED]
        pattern = ".* ".join(map(re.escape, [variant["label"], *words, "0, 1, 2"]))
        assert re.fullmatch(pattern, row), (pattern, row)


def test_the_order_is_verdict_figures_pictures_scale_provenance(sweep):
    _, _, html, markdown = sweep
    ids = [attributes["id"] for tag, attributes in html.elements if tag in ("h2", "h3")]
    kinds = [name.split("-")[0] for name in ids]
    each = ["group", "figures", "pictures", "scale"]
    assert kinds == ["verdict", *each, *each, "provenance", "warnings"]
    titles = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    assert titles[0] == "Verdict" and titles[-1] == "Where the numbers come from"


def test_figures_are_rounded_with_units_and_intervals(sweep):
    _, content, html, markdown = sweep
    variant = content["groups"][0]["variants"][1]
    figures = variant["figures"]
    step, accuracy = figures["step_time_ms"], figures["validation_accuracy"]
    rows = {row[0].strip(): row[1:] for row in html.rows if row}
    assert rows["Time per step, median"][1].split() == (
        f"{step['value']:.2f} ms {step['low']:.2f} to {step['high']:.2f}".split()
    )
    assert rows["Validation accuracy"][1].split() == (
        f"{100 * accuracy['value']:.2f} % {100 * accuracy['low']:.2f} to "
        f"{100 * accuracy['high']:.2f}".split()
    )
    assert rows["Peak memory on CPU:0 (a test's CPU)"][0].strip() == "200.0 MiB 200.0 to 200.0"
    assert rows["Speed-up per step"][0].strip() == "baseline"
    assert rows["Speed-up per step"][1].strip() == "1.45× 1.40 to 1.50 faster"  # noqa: RUF001
    assert rows["Accuracy difference"][1].endswith("within noise")
    assert rows["Skipped steps"][0].strip() == formatting.DASH
    assert rows["Skipped steps"][1].strip() == "3 of 180 1 in each run"
    assert ["Time per step, median", "102.0 ms (97.1 to 107.1)"] in [
        row[:2] for row in markdown_rows(markdown)
    ]


def test_a_newcomer_is_told_what_the_words_mean(sweep):
    _, _, html, markdown = sweep
    for text in (html.text, " ".join(markdown.split())):
        for word in (
            "precision policy",
            "95% interval",
            "Student",
            "arcsin √ for an accuracy",
            "paired by seed",
            "ithin noise",
            "below 5 % of speed, 5 % of memory or 0.1 points of accuracy",
        ):
            assert word in text
        assert "after the first, which compiles" in text
        assert "No step time includes compiling." in text


def test_seeds_whose_scale_did_the_same_share_a_row(sweep):
    _, content, html, _ = sweep
    table = scale_tables.scales(content["groups"][0])
    (row,) = [row for name, row in table.rows if name == "mixed_float16"]
    assert [cell.text for cell in row] == [
        "0, 1, 2",
        "dynamic",
        "65536 (2¹⁶)",
        "65536 (2¹⁶)",
        "65536 (2¹⁶)",
        "1",
        "1 of 60",
        "0",
        "step 4",
    ]
    sentence = (
        "mixed_float16 without loss scaling trained in 3 of 3 runs; 0 of 180 steps had a "
        "non-finite gradient, and 70.00 % of the gradient entries were zero, beside 30.00 % "
        "under mixed_float16."
    )
    assert sentence in html.text


def test_pictures_are_inside_the_page_and_beside_the_markdown(sweep):
    logdir, _, html, markdown = sweep
    images = html.all("img")
    assert len(images) == 2 * len(group_pictures.FILES)
    for image in images:
        assert image["alt"]
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        assert imread(io.BytesIO(base64.b64decode(data, validate=True))).shape[1] == 960
    linked = re.findall(r"^!\[.+\]\((.+)\)$", markdown, re.MULTILINE)
    assert len(linked) == len(images)
    assert all((logdir / "report" / path).is_file() for path in linked)


def test_the_page_asks_for_nothing(sweep):
    logdir, _, html, _ = sweep
    assert not {tag for tag, _ in html.elements} & {"script", "link", "iframe", "object"}
    for _, attributes in html.elements:
        assert not attributes.get("href", "#").partition("#")[0]
        assert attributes.get("src", "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on")]
    text = (logdir / "report" / "report.html").read_text()
    assert not re.search(r"@import|url\(|https?://", text)


def test_the_page_is_named_and_its_ids_are_unique(sweep):
    _, _, html, _ = sweep
    assert html.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in html.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in html.all("a")} <= set(ids)


def test_markdown_tables_are_well_formed(sweep):
    *_, markdown = sweep
    assert len(markdown_rows(markdown)) > 40
    assert "\n\n\n" not in markdown


def test_hostile_names_stay_text(tmp_path):
    write_run(tmp_path, policy="float32")
    name = HOSTILE.replace("/", "_")
    write_run(tmp_path, policy="mixed_float16", name=name, device=f"CPU:0 ({HOSTILE})")
    broken = write_run(tmp_path, policy="bfloat16", seed=7, name=f"{name}\n# broken")
    rewrite(broken / "result.json", status="failed", error=f"boom\n\n# {HOSTILE}\x1b[31m")
    _, html, markdown = written(tmp_path)
    assert name in html.text
    assert all(image["src"].startswith("data:") for image in html.all("img"))
    assert "\x1b" not in html.text + markdown
    markdown_rows(markdown)
    assert "<img" not in markdown and not re.search(r"(?<!\\)\[c(?<!\\)\]\(", markdown)
    assert not re.search(r"^# (?!Mixed-precision)", markdown, re.MULTILINE)


def test_names_that_are_no_unicode_are_written(tmp_path):
    write_run(tmp_path, policy="float32", name="caf\udce9")
    content, *_ = undrawn(tmp_path)
    page_files.write(report_page.page_of(content), tmp_path / "report")
    assert "caf?" in Reader((tmp_path / "report" / "report.html").read_text()).text


def test_an_earlier_reports_pictures_are_removed(tmp_path):
    write_run(tmp_path, policy="float32")
    content, *_ = undrawn(tmp_path)
    page_files.write(report_page.page_of(content), tmp_path / "report")
    stale = tmp_path / "report" / "pictures" / "group9" / "memory.png"
    mine = stale.with_name("mine.png")
    stale.parent.mkdir(parents=True)
    stale.touch()
    mine.touch()
    page_files.write(report_page.page_of(content), tmp_path / "report")
    assert not stale.exists() and mine.exists()


def test_a_page_that_cannot_be_rendered_leaves_the_old_one(tmp_path):
    write_run(tmp_path, policy="float32")
    content, *_ = undrawn(tmp_path)
    page = report_page.page_of(content)
    page_files.write(page, tmp_path / "report")
    before = (tmp_path / "report" / "report.html").read_bytes()
    with pytest.raises(jinja2.UndefinedError):
        page_files.write(dataclasses.replace(page, context={}), tmp_path / "report")
    assert (tmp_path / "report" / "report.html").read_bytes() == before
    assert not list((tmp_path / "report").glob(".tfamp-partial-*"))


def test_a_report_of_nothing_that_finished(tmp_path):
    (tmp_path / "empty").mkdir()
    run = write_run(tmp_path, policy="float32", name="broken")
    (run / "result.json").unlink()
    content, html, markdown = undrawn(tmp_path)
    assert content["groups"] == []
    for text in (html.text, markdown):
        assert "No two runs could be compared" in text
        assert "broken" in text and "empty" in text
    assert html.all("img") == []


def test_a_group_without_a_baseline_has_figures_and_no_verdict(tmp_path):
    write_run(tmp_path, policy="float32", dataset="cifar10")
    write_run(tmp_path, policy="mixed_float16", seed=1)
    content, html, _ = written(tmp_path)
    assert all(v["comparison"] is None for g in content["groups"] for v in g["variants"])
    assert "No two runs could be compared" in html.text
    assert "Runs not compared" in html.text
    assert len(html.all("img")) == 4 + 5


def test_one_seed_has_no_interval_and_an_unknown_verdict(tmp_path):
    write_run(tmp_path, policy="float32")
    write_run(tmp_path, policy="mixed_bfloat16", step_ms=50)
    _, html, markdown = undrawn(tmp_path)
    assert "2.00× no interval unknown" in html.text  # noqa: RUF001
    assert "2.00× (no interval), unknown" in markdown  # noqa: RUF001
    assert "verdict-table" in {attributes.get("id") for _, attributes in html.elements}


def test_one_epoch_says_that_it_includes_compiling(tmp_path):
    write_run(tmp_path, policy="float32", epochs=1)
    _, html, markdown = undrawn(tmp_path)
    assert "22.00 s includes compiling" in html.text
    assert "22.00 s (includes compiling)" in markdown


def test_what_was_not_measured_is_a_dash_and_nan_is_nan(tmp_path):
    for policy in ("float32", "mixed_float16"):
        run = write_run(tmp_path, policy=policy, peak=None, accuracy=math.nan)
        rewrite(run / "result.json", step_time_ms=None, examples_per_sec=None)
    _, html, _ = undrawn(tmp_path)
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in html.rows if row}
    assert rows["Time per step, median"] == [formatting.DASH, formatting.DASH]
    assert rows["Examples per second"] == [formatting.DASH, formatting.DASH]
    assert rows["Peak memory on CPU:0 (a test's CPU)"] == [formatting.DASH, formatting.DASH]
    assert rows["Speed-up per step"] == ["baseline", f"{formatting.DASH} not measured"]
    assert rows["Validation accuracy"] == ["NaN", "NaN"]
    assert rows["Accuracy difference"][1].startswith("NaN")


def _holes(value, path=()):
    """Paths of all values in a document that may be null."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _holes(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _holes(entry, (*path, index))
    elif isinstance(value, float):
        yield path


@pytest.mark.parametrize("hole", [None, "NaN", "Infinity", "-Infinity"])
def test_any_hole_in_a_document_can_be_rendered(sweep, hole):
    _, content, *_ = sweep
    content = copy.deepcopy(content)
    paths = list(_holes(content["groups"]))
    assert len(paths) > 500
    for *above, last in paths:
        value = content["groups"]
        for key in above:
            value = value[key]
        value[last] = hole
    Reader(report_page.page_of(content).html({}))
    markdown_rows(report_page.page_of(content).markdown({}))


def test_absent_parts_of_a_document_can_be_rendered(sweep):
    _, content, *_ = sweep
    content = copy.deepcopy(content)
    for group in content["groups"]:
        group["baseline"] = None
        for variant in group["variants"]:
            variant |= {"comparison": None, "verdict": None, "skipped_steps": None}
            variant |= {"final_scale": None, "is_baseline": False}
            variant["figures"] = dict.fromkeys(variant["figures"])
            for run in variant["runs"]:
                run |= {"loss_scale": None, "gradients": None, "git_revision": None}
    content["provenance"] |= {"commands": {}, "versions": {}, "seeds": [], "sweeps": []}
    Reader(report_page.page_of(content).html({}))
    markdown_rows(report_page.page_of(content).markdown({}))


def test_many_warnings_are_counted_above_and_listed_below(sweep):
    _, content, *_ = sweep
    content = content | {"warnings": [f"warning number {n}." for n in range(20)]}
    html = Reader(report_page.page_of(content).html({}))
    assert "20 warnings" in html.text and "All 20 warnings" in html.text
    assert html.text.count("warning number 0.") == 2 and html.text.count("warning number 19.") == 1


def test_the_summary_names_what_was_left_out(tmp_path):
    write_run(tmp_path, policy="float32")
    write_run(tmp_path, policy="mixed_bfloat16", step_ms=50)
    write_run(tmp_path, policy="bfloat16", seed=4, name="alone")
    broken = write_run(tmp_path, policy="float32", seed=5, name="broken\x1b[31m")
    (broken / "result.json").unlink()
    found, passed_over = runs.find(tmp_path, tmp_path / "report")
    compared = comparison.compare(found, "float32")
    content = document.build(tmp_path, "float32", compared, passed_over)
    lines = report_page.summary(content, tmp_path / "report").splitlines()
    sentences = next(v["verdict"] for v in content["groups"][0]["variants"] if v["verdict"])
    assert lines == [
        content["groups"][0]["title"],
        *(f"  {sentence}" for sentence in sentences),
        f"Warnings: {len(content['warnings'])}, in the report's first lines.",
        "Runs not compared: alone",
        "Folders passed over: broken�[31m",
        f"Report: {tmp_path / 'report' / 'report.html'}",
    ]
