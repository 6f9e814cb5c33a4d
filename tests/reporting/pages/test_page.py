"""A page of a command that is no report: its look, its files and its parts are those of all."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
import pytest
from read_pages import Reader, markdown_rows

from tfamp.reporting.figures import picture, rows, style
from tfamp.reporting.pages import page_files, table
from tfamp.reporting.pages.page import Page, Source
from tfamp.reporting.pages.table import Table, TableCell
from tfamp.run.errors import InputError

TEMPLATES = jinja2.DictLoader(
    {
        "toy.html.jinja": """\
{% extends "base.html.jinja" %}
{% block about %}Layers of <code>{{ document.model }}</code>.{% endblock %}
{% block verdict %}
<p>{{ verdict }}</p>
{% endblock %}
{% block sections %}
<section>
<h2 id="layers">Layers</h2>
{{ parts.table(layers, "layers-table") }}
{{ parts.pictures(pictures["layers"]) }}
{{ parts.list(["One & only."]) }}
</section>
{% endblock %}
""",
        "toy.md.jinja": """\
{% extends "base.md.jinja" %}
{% block about %}Layers of {{ document.model }}.{% endblock %}
{% block verdict %}
{{ verdict }}

{% endblock %}
{% block sections %}
## Layers

{{ parts.table(layers) }}

{% for entry in pictures["layers"] %}
{{ parts.picture(entry) }}

{% endfor %}
{% endblock %}
""",
    }
)
LAYERS = Table(
    "Layers that underflow.",
    ("Layer", "Zeros"),
    (("conv|1", (TableCell("12 %", small="of 9", word="worse", tone="bad"),)),),
)


def toy(**changes):
    values = {
        "name": "toy",
        "title": "What underflows",
        "subject": "mine",
        "document": {"tfamp_version": "9.9", "model": "<mine>", "zeros": 0.12},
        "lead": "Nothing trained.",
        "next_steps": [{"why": "Scale the loss:", "commands": ["train --loss_scale=8"]}],
        "warnings": [f"doubt {number}" for number in range(8)],
        "sources": [
            Source("Device", ["CPU:0"]),
            Source("Revisions", ["abc", "def"], is_code=True),
        ],
        "versions": table.of_versions({"keras": ["3.15.1"]}, "Versions."),
        "commands": {"first": "train --epochs=1", "second": None},
        "context": {"verdict": "One layer underflows.", "layers": LAYERS},
        "pictures": ["layers/*.png"],
        "templates": TEMPLATES,
    }
    return Page(**(values | changes))


def draw(folder):
    (folder / "layers").mkdir(parents=True)
    with style.house_style():
        drawn = picture.new_figure(2.0)
        axes = drawn.subplots()
        axes.barh(0, 12.0, color=style.style_of(0).colour)
        rows.write_name(axes, 0, "conv|1", "12 %")
        rows.finish(axes, 1, "Zeros (%)")
        texts = picture.Picture("zeros.png", "Zeros", "One bar.", "Of *all* entries.")
        return {"layers": picture.save_all([(drawn, texts), None], folder / "layers")}


def test_a_page_of_its_own_has_what_all_pages_have(tmp_path):
    page_files.write(toy(), tmp_path / "out", draw)
    out = tmp_path / "out"
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {
        "toy.html",
        "toy.md",
        "toy.json",
        "pictures/layers/zeros.png",
    }
    assert json.loads((out / "toy.json").read_text())["zeros"] == 0.12
    html = Reader((out / "toy.html").read_text())
    assert html.text.startswith("What underflows: mine")
    assert "Layers of <mine> . Made by tfamp 9.9." in html.text
    told = ["Nothing trained.", "Scale the loss:", "train --loss_scale=8", "8 warnings", "doubt 5"]
    told += ["All 8 warnings", "Verdict", "One layer underflows.", "Layers that underflow."]
    told += ["conv|1", "12 %", "of 9", "worse", "Zeros", "Of *all* entries.", "One & only."]
    told += ["Where the numbers come from", "Device", "CPU:0", "Revisions", "abc", "def", "keras"]
    told += ["Command lines of 2 runs", "train --epochs=1", "not recorded", "doubt 7", "toy.json"]
    at = html.text.index("Made by tfamp")
    for part in told:
        at = html.text.index(part, at) + len(part)
    assert html.text.count("doubt 5") == 2 and html.text.count("doubt 6") == 1
    assert [a.get("class") for a in html.all("span")].count("word bad") == 1
    assert [a["src"][:22] for a in html.all("img")] == ["data:image/png;base64,"]
    markdown = (out / "toy.md").read_text()
    assert [r"conv\|1", "12 % (of 9), worse"] in markdown_rows(markdown)
    for part in (
        "# What underflows\n\nLayers of &lt;mine&gt;. Made by tfamp 9.9.\n",
        "\n**Nothing trained.**\n",
        "\n    train --loss_scale=8\n",
        "\n**8 warnings**\n\n- doubt 0\n",
        "\n## Verdict\n\nOne layer underflows.\n",
        "\n### Zeros\n\n![One bar.](pictures/layers/zeros.png)\n\nOf \\*all\\* entries.\n",
        "\n- Device: CPU:0\n- Revisions: abc, def\n",
        "\n### Command lines\n\n- first: train --epochs=1\n- second: \n",
        "\nAll numbers, unrounded: toy.json.\n",
    ):
        assert part in markdown


def test_what_a_page_lacks_has_no_place_on_it():
    page = toy(lead="", next_steps=(), warnings=(), versions=None, commands={}, sources=())
    html, markdown = Reader(page.html({"layers": []})), page.markdown({"layers": []})
    assert html.all("aside") == [] and html.all("details") == []
    assert [a["id"] for tag, a in html.elements if tag in ("h2", "h3")] == [
        "verdict",
        "layers",
        "provenance",
    ]
    assert "warning" not in markdown and "**" not in markdown
    assert len(html.all("table")) == 1


def test_one_warning_is_one():
    assert "1 warning to read" in Reader(toy(warnings=["a"]).html({"layers": []})).text


def test_a_page_stands_beside_others_and_replaces_only_its_own(tmp_path):
    for name in ("report.html", "pictures/layers/mine.txt", "pictures/other/zeros.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")

    def draw_less(folder):
        (folder / "layers").mkdir(parents=True, exist_ok=True)
        return {"layers": []}

    page_files.write(toy(), tmp_path, draw_less)
    (tmp_path / "pictures/layers/zeros.png").touch()
    page_files.write(toy(title="Another"), tmp_path, draw_less)
    assert "Another" in (tmp_path / "toy.html").read_text()
    assert not (tmp_path / "pictures/layers/zeros.png").exists(), "an earlier page's picture"
    for name in ("report.html", "pictures/layers/mine.txt", "pictures/other/zeros.png"):
        assert (tmp_path / name).read_text() == "mine"
    assert not list(tmp_path.rglob(".tfamp-partial-*"))


@pytest.mark.parametrize("name", ["toy.json", "toy.md", "toy.html", "pictures/layers/a.png"])
def test_what_no_page_wrote_is_never_replaced(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    refusals = (
        lambda: page_files.write(toy(), tmp_path, draw),
        lambda: page_files.check("toy", toy().pictures, tmp_path),
    )
    for refused in refusals:
        with pytest.raises(InputError) as caught:
            refused()
        assert str(tmp_path / name) in str(caught.value) and caught.value.field == "out"
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / name).read_text() == "{}"


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        page_files.write(toy(), tmp_path / "file" / "out", page_files.no_pictures)
    assert str(tmp_path / "file") in str(caught.value) and caught.value.field == "out"
    # Root may write everywhere, and still no file can be made in /proc.
    for folder in (tmp_path / "file", Path("/proc")):
        with pytest.raises(InputError) as caught:
            page_files.check("toy", (), folder / "new" / "out")
        assert str(folder) in str(caught.value) and caught.value.field == "out"


def test_what_is_fit_to_be_written_to_is_left_as_it_is(tmp_path):
    page_files.check("toy", toy().pictures, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()
    page_files.write(toy(), tmp_path, draw)
    page_files.check("toy", toy().pictures, tmp_path)


def test_what_a_template_asks_for_and_has_not_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="layers"):
        toy(context={"verdict": ""}).markdown({"layers": []})
