"""Writes a report: report.html in one file, report.md, report.json and the pictures."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from tfamp.reporting import document
from tfamp.reporting.figures import plots
from tfamp.reporting.figures.plots import Picture
from tfamp.reporting.groups import Comparisons
from tfamp.reporting.pages import formatting, scale_tables, tables
from tfamp.reporting.pages.tables import Table
from tfamp.run.directory import written_whole
from tfamp.run.errors import InputError

PICTURES = "pictures"
_TEXTS = ("report.json", "report.md", "report.html")
# Warnings that are shown in full above the verdict; further ones by a link.
_WARNINGS_ABOVE = 6


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A picture with what the pages need of it.

    Attributes:
        picture: Its texts.
        path: Its PNG, relative to the report.
        uri: The PNG itself as a data URI.
    """

    picture: Picture
    path: str
    uri: str


def write(out: Path, content: Mapping[str, Any], comparisons: Comparisons) -> None:
    """Writes the report's files; report.html last, so that it never shows what is not there.

    Args:
        out: The folder, made where it is not there. What is in it and is no report stays.
        content: The document, as `document.build` makes it.
        comparisons: The runs that the document describes, for the pictures.

    Raises:
        InputError: A file of the report's names is there that no report is; nothing was written.
        OSError: The folder cannot be written.
    """
    _refuse_foreign_files(out)
    out.mkdir(parents=True, exist_ok=True)
    # First: whose the pictures are can be told from it, also after a kill.
    _replace(out / "report.json", document.dump(dict(content)))
    _remove_pictures(out / PICTURES)
    pictures = {}
    for number, (entry, group) in enumerate(
        zip(content["groups"], comparisons.groups, strict=True), start=1
    ):
        # Numbered and not named: a title made of paths can be longer than a file name may be.
        folder = out / PICTURES / f"group{number}"
        folder.mkdir(parents=True, exist_ok=True)
        pictures[entry["id"]] = [
            _Shown(picture, f"{PICTURES}/{folder.name}/{picture.file}", _uri(folder / picture.file))
            for picture in plots.draw(group, folder)
        ]
    _replace(out / "report.md", render("report.md.jinja", content, pictures))
    _replace(out / "report.html", render("report.html.jinja", content, pictures))


def summary(content: Mapping[str, Any], out: Path) -> str:
    """What the command prints: what to run next, the verdicts, how much to doubt them, and where.

    What to run next comes first, as it does on the pages.
    """
    lines: list[str] = []
    if not tables.verdicts(content):
        lines.append("No two runs could be compared.")
    for step in content["next_steps"]:
        lines.append(step["why"])
        lines += [f"  {command}" for command in step["commands"]]
    for group in content["groups"]:
        told = [variant["verdict"] for variant in group["variants"] if variant["verdict"]]
        if told:
            lines.append(group["title"])
            lines += [f"  {sentence}" for sentences in told for sentence in sentences]
    if content["warnings"]:
        lines.append(f"Warnings: {len(content['warnings'])}, in the report's first lines.")
    if content["unpaired"]:
        lines.append(f"Runs not compared: {_names(content['unpaired'])}")
    if content["passed_over"]:
        lines.append(f"Folders passed over: {_names(content['passed_over'])}")
    lines.append(f"Report: {out / 'report.html'}")
    return "\n".join(formatting.one_line(line) for line in lines)


def _names(entries: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(entry["directory"]) for entry in entries)


def render(
    template: str, content: Mapping[str, Any], pictures: Mapping[str, Sequence[_Shown]]
) -> str:
    """Fills a template; what comes from the document is escaped for its format.

    Args:
        template: `report.html.jinja` or `report.md.jinja`.
        content: The document.
        pictures: Each group's pictures by the group's id.
    """
    is_html = template.endswith(".html.jinja")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfamp.reporting.pages"),
        autoescape=is_html,
        finalize=_html if is_html else _markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    groups = [
        {
            "id": group["id"],
            "title": group["title"],
            "device": group["device"],
            "baseline": group["baseline"],
            "figures": tables.figures(group),
            "includes_compile": any(
                variant["epoch_time_includes_compile"] for variant in group["variants"]
            ),
            "pictures": pictures.get(group["id"], ()),
            "scales": scale_tables.scales(group),
            "gradients": scale_tables.gradients(group),
            "gradient_sentences": scale_tables.gradient_sentences(group),
        }
        for group in content["groups"]
    ]
    return environment.get_template(template).render(
        document=content,
        groups=groups,
        verdicts=tables.verdicts(content),
        smallest={
            name: formatting.text(effect, formatting.whole_percent)
            for name, effect in content["smallest_effects"].items()
        },
        warnings_above=content["warnings"][:_WARNINGS_ABOVE],
        unpaired=tables.entries(
            content["unpaired"],
            "Completed runs that have no partner, and what the nearest one differs in.",
        ),
        passed_over=tables.entries(
            content["passed_over"], "Folders that hold no run to use, and why."
        ),
        versions=tables.versions(content["provenance"]),
        listed=formatting.listed,
        markdown_table=markdown_table,
        markdown_code=markdown_code,
    )


def _html(value: Any) -> Any:
    if isinstance(value, markupsafe.Markup):
        return value
    return "" if value is None else formatting.one_line(value)


def _markdown(value: Any) -> Any:
    if isinstance(value, markupsafe.Markup):
        return value
    return "" if value is None else markdown(value)


def markdown(value: Any) -> str:
    """A text that Markdown shows as it is, in a cell of a table too."""
    text = formatting.one_line(value)
    escaped = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", text)
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Within a word an underscore is one; elsewhere it would begin emphasis.
    escaped = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)
    # At the start of a line these would begin a list or a rule.
    escaped = re.sub(r"^(\s*)([-+=])(?![A-Za-z0-9.])", r"\1\\\2", escaped)
    return re.sub(r"^(\s*\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)


def markdown_code(text: str) -> markupsafe.Markup:
    """A line to copy, as a block of code."""
    return markupsafe.Markup(f"    {formatting.one_line(text)}")


def markdown_table(table: Table) -> markupsafe.Markup:
    """A table in GitHub's Markdown."""
    sides = ["---:" if is_number else "---" for is_number in table.sides]
    lines = ["| " + " | ".join(map(markdown, table.header)) + " |"]
    lines.append("| " + " | ".join(["---", *sides]) + " |")
    for name, row in table.rows:
        if not row:
            lines.append(f"| **{markdown(name)}** |" + " |" * len(sides))
            continue
        parts = [name]
        for cell in row:
            small = f" ({cell.small})" if cell.small else ""
            parts.append(f"{cell.text}{small}" + (f", {cell.word}" if cell.word else ""))
        lines.append("| " + " | ".join(map(markdown, parts)) + " |")
    return markupsafe.Markup("\n".join(lines))


def _uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _refuse_foreign_files(out: Path) -> None:
    """Refuses a folder where somebody else's files have the report's names."""
    texts = [out / name for name in _TEXTS]
    foreign = [path for path in texts if path.exists() and not _is_ours(path)]
    pictures = out / PICTURES
    if not any(_is_ours(path) for path in texts):
        foreign += [path for name in plots.FILES for path in pictures.glob(f"group*/{name}")]
        foreign += [pictures] if pictures.exists() and not pictures.is_dir() else []
    if foreign:
        named = ", ".join(str(path) for path in foreign[:5])
        raise InputError(
            f"{named}: no report of tfamp wrote this, and a report is made of files of that name. "
            "Set --out to another folder, or move what is there."
        )


def _is_ours(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return ('"tfamp_version"' if path.suffix == ".json" else "Made by tfamp") in text


def _remove_pictures(folder: Path) -> None:
    """Removes an earlier report's pictures: one left behind would be taken for the new one's."""
    for name in plots.FILES:
        for path in folder.glob(f"group*/{name}"):
            path.unlink()


def _replace(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        # A folder's name need not be UTF-8; Python then holds what no encoder takes.
        partial.write_bytes(text.encode("utf-8", "replace"))
