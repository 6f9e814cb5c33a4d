"""The page of a fidelity, read as a browser and as GitHub would."""

from __future__ import annotations

import dataclasses
import json

import pytest
from read_pages import Reader, markdown_rows

from tests.reporting import made_fidelity
from tfamp.reporting.pages import fidelity_page
from tfamp.run.errors import InputError
from tfamp.run.fidelity import Fidelity


def undrawn(fidelity):
    """The page and the Markdown without pictures."""
    page = fidelity_page.page_of(fidelity)
    return Reader(page.html({})), page.markdown({})


def test_what_is_written_is_returned_and_whole(tmp_path):
    fidelity = made_fidelity.healthy()
    (tmp_path / "mine.txt").write_text("mine")
    files = fidelity_page.write(fidelity, tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in files]
    assert names[:3] == ["fidelity.json", "fidelity.md", "fidelity.html"]
    assert all(path.stat().st_size for path in files)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - set(files) == {
        tmp_path / "mine.txt"
    }
    assert Fidelity.read(tmp_path / "fidelity.json") == fidelity
    pictures = [path for path in files if path.suffix == ".png"]
    html = Reader((tmp_path / "fidelity.html").read_text())
    assert len(html.all("img")) == len(pictures) > 0
    markdown = (tmp_path / "fidelity.md").read_text()
    for picture in pictures:
        assert f"(pictures/fidelity/{picture.name})" in markdown
    # Again: tfamp's own files are replaced.
    assert fidelity_page.write(fidelity, tmp_path) == files


@pytest.mark.parametrize("name", made_fidelity.ALL)
def test_every_kind_reads_well(name):
    html, markdown = undrawn(made_fidelity.ALL[name]())
    rows = markdown_rows(markdown)
    assert len(rows) > 10
    for text in (html.text, markdown):
        assert "None" not in text and "nan" not in text.split()
    assert [a["id"] for tag, a in html.elements if tag == "h2"][:2] == ["verdict", "precisions"]
    ids = [a["id"] for _, a in html.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_healthy_ones_figures_are_there():
    fidelity = made_fidelity.healthy()
    html, markdown = undrawn(fidelity)
    window = fidelity.window
    assert (window.log2_min, window.log2_max) == (2, 19)
    for text in (html.text, markdown):
        for told in (
            "2²",
            "2¹⁹",
            "resnet20",
            "fashion_mnist_mini",
            "2 batches of 64 examples",
            "CPU:0 (a test's CPU)",
            "without XLA",
            "python -m tfamp.fidelity --model=resnet20 --out=fidelity",
            *fidelity.advice.flags,
            fidelity.advice.summary,
            "4.99 %",
            "41.00 %",
            "2.21.0",
            fidelity.limits[0],
        ):
            assert told in text.replace("&#39;", "'"), told
    assert "left out: 1 more" in html.text
    (row,) = [row for row in markdown_rows(markdown) if row[0] == "float32"]
    error = fidelity.precisions[0].relative_error
    assert row[1:4] == ["none", f"{100 * error:.7f} %", "1"] and 1e-7 < error < 1e-6
    relu = next(row for row in html.rows if row and row[0].strip() == "relu")
    assert "of its outputs' gradients" in relu[3] and relu[5].strip() == "–"  # noqa: RUF001
    stem = next(row for row in html.rows if row and row[0].strip() == "stem")
    assert stem[2].strip().startswith("2²")


def test_what_contradicts_is_named_with_what_to_do():
    fidelity = made_fidelity.contradiction()
    html, _ = undrawn(fidelity)
    assert fidelity.why in html.text and "block1" in fidelity.why and "block2" in fidelity.why
    assert "--float32_layers=block2" in html.text


def test_a_layer_without_a_window_says_why():
    fidelity = made_fidelity.no_window()
    html, _ = undrawn(fidelity)
    why = next(layer.why for layer in fidelity.layers if layer.window is None)
    assert sum(why in cell for row in html.rows for cell in row) == 1


def test_an_open_window_says_that_it_may_reach_further():
    html, markdown = undrawn(made_fidelity.open_window())
    for text in (html.text, markdown):
        assert "2⁷ is only the largest that was tried" in text
    assert any("2⁰ to 2⁷ or more" in cell for row in html.rows for cell in row)


def test_what_was_not_asked_for_is_said_and_not_called_a_fault():
    html, _ = undrawn(made_fidelity.without_float16())
    assert html.text.count("mixed_float16 was not asked for") == 3
    assert html.all("aside") == [] and "not tried" not in html.text
    row = next(row for row in html.rows if row and row[0].strip() == "block2")
    errors = [p.relative_error for p in made_fidelity.without_float16().layers[1].points]
    shown = [float(cell.removesuffix("%")) / 100 for cell in row[2:]]
    assert shown == pytest.approx(errors, rel=0.01)


def test_forward_overflow_is_told_as_not_finite():
    html, _ = undrawn(made_fidelity.forward_overflow())
    assert "not finite at any scale that was tried" in html.text


@pytest.mark.parametrize("name", ["fidelity.json", "pictures/fidelity/sizes.png"])
def test_what_tfamp_did_not_write_is_never_replaced(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"written_by": "me"}')
    with pytest.raises(InputError) as caught:
        fidelity_page.write(made_fidelity.one_layer(), tmp_path)
    assert caught.value.field == "out" and str(tmp_path / name) in str(caught.value)
    assert (tmp_path / name).read_text() == '{"written_by": "me"}'


def test_a_page_that_was_cut_off_is_written_again(tmp_path):
    fidelity = made_fidelity.without_float16()
    fidelity_page.write(fidelity, tmp_path)
    for name in ("fidelity.html", "fidelity.md"):
        (tmp_path / name).unlink()
    # fidelity.json alone says whose the pictures are.
    (tmp_path / "pictures/fidelity/layers_and_scales.png").write_text("of an earlier one")
    files = fidelity_page.write(fidelity, tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(files)


def test_where_the_runs_scale_ended_is_told_against_the_window():
    base = made_fidelity.made({"a": -24.0, "b": -2.0})
    assert not base.window.is_open
    for log2_scale, where in (
        (base.window.log2_min - 1.0, "below the window"),
        (float(base.window.log2_min), "inside the window"),
        (base.window.log2_max + 1.0, "above the window"),
    ):
        html, _ = undrawn(dataclasses.replace(base, settled_log2_scale=log2_scale))
        assert where in html.text


def test_many_layers_are_folded_and_all_there():
    fidelity = made_fidelity.of_many_layers()
    html, markdown = undrawn(fidelity)
    assert "details" in [tag for tag, _ in html.elements]
    assert "left out: 25 more" in html.text
    first = [row[0] for row in markdown_rows(markdown)]
    for layer in fidelity.layers:
        assert (layer.path in first) == bool(layer.points)
    ranked = fidelity.error_budget.layers
    assert first.count(ranked[11].path) == 2 and first.count(ranked[12].path) == 1
    assert f"The other {len(ranked) - 12} are in fidelity.json" in html.text


def test_hostile_names_are_text(tmp_path):
    fidelity = made_fidelity.hostile()
    page = fidelity_page.page_of(fidelity)
    text = page.html({})
    assert "<script" not in text and "\x1b" not in text
    html = Reader(text)
    assert html.text.count('<script>alert("1")</script>') > 3
    markdown = page.markdown({})
    assert "<script" not in markdown and "\x1b" not in markdown
    markdown_rows(markdown)
    assert json.loads(json.dumps(page.document))["model"] == made_fidelity.HOSTILE
