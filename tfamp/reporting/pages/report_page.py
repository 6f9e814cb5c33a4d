"""The page of a report, and what the command prints of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfamp.reporting.figures import group_pictures
from tfamp.reporting.figures.picture import Picture
from tfamp.reporting.groups import Group
from tfamp.reporting.pages import formatting, page_files, report_tables, scale_tables, table
from tfamp.reporting.pages.page import Page, Source

NAME = "report"
_NOTHING_COMPARED = "No two runs could be compared."


def write(out: Path, document: Mapping[str, Any], groups: Sequence[Group]) -> None:
    """Writes report.html in one file, report.md, report.json and the pictures.

    Args:
        out: The folder.
        document: What the report says, as `document.build` makes it.
        groups: The groups that the document describes, for the pictures.

    Raises:
        InputError: As for `page_files.write`.
    """

    def draw(folder: Path) -> dict[str, list[Picture]]:
        drawn = {}
        for number, group in enumerate(groups, start=1):
            name = _folder(number)
            (folder / name).mkdir(parents=True, exist_ok=True)
            drawn[name] = group_pictures.draw(group, folder / name)
        return drawn

    page_files.write(page_of(document), out, draw)


def _folder(number: int | str) -> str:
    # Numbered and not named: a title made of paths can be longer than a file name may be.
    return f"group{number}"


def page_of(document: Mapping[str, Any]) -> Page:
    """The page of a document."""
    provenance = document["provenance"]
    sweeps = provenance["sweeps"]
    verdicts = report_tables.verdicts(document)
    return Page(
        name=NAME,
        title="Mixed-precision report",
        subject=document["logdir"],
        document=document,
        lead="" if verdicts else _NOTHING_COMPARED,
        next_steps=document["next_steps"],
        warnings=document["warnings"],
        sources=[
            Source("Devices", [formatting.listed(provenance["devices"])]),
            Source("Seeds", [formatting.listed(provenance["seeds"])]),
            Source("Git revisions", [formatting.listed(provenance["git_revisions"])], is_code=True),
            Source("Sweep", sweeps or ["none recorded"], is_code=bool(sweeps)),
        ],
        versions=table.of_versions(provenance.get("versions", {}), "Versions that the runs used."),
        commands=provenance["commands"],
        context={
            "verdicts": verdicts,
            "groups": [
                _group(group, _folder(number))
                for number, group in enumerate(document["groups"], start=1)
            ],
            "smallest": {
                name: formatting.text(effect, formatting.whole_percent)
                for name, effect in document["smallest_effects"].items()
            },
            "unpaired": report_tables.entries(
                document["unpaired"],
                "Completed runs that have no partner, and what the nearest one differs in.",
            ),
            "passed_over": report_tables.entries(
                document["passed_over"], "Folders that hold no run to use, and why."
            ),
        },
        pictures=[f"{_folder('*')}/{name}" for name in group_pictures.FILES],
    )


def _group(group: Mapping[str, Any], folder: str) -> dict[str, Any]:
    return {
        "id": group["id"],
        "title": group["title"],
        "folder": folder,
        "measurements": report_tables.measurements(group),
        "includes_compile": any(
            variant["epoch_time_includes_compile"] for variant in group["variants"]
        ),
        "scales": scale_tables.scales(group),
        "gradients": scale_tables.gradients(group),
        "gradient_sentences": scale_tables.gradient_sentences(group),
    }


def summary(document: Mapping[str, Any], out: Path) -> str:
    """What the command prints: what to run next, the verdicts, how much to doubt them, and where.

    What to run next comes first, as it does on the pages.
    """
    lines: list[str] = []
    if not report_tables.verdicts(document):
        lines.append(_NOTHING_COMPARED)
    for step in document["next_steps"]:
        lines.append(step["why"])
        lines += [f"  {command}" for command in step["commands"]]
    for group in document["groups"]:
        told = [variant["verdict"] for variant in group["variants"] if variant["verdict"]]
        if told:
            lines.append(group["title"])
            lines += [f"  {sentence}" for sentences in told for sentence in sentences]
    if document["warnings"]:
        lines.append(f"Warnings: {len(document['warnings'])}, in the report's first lines.")
    if document["unpaired"]:
        lines.append(f"Runs not compared: {_names(document['unpaired'])}")
    if document["passed_over"]:
        lines.append(f"Folders passed over: {_names(document['passed_over'])}")
    lines.append(f"Report: {out / 'report.html'}")
    return "\n".join(formatting.one_line(line) for line in lines)


def _names(entries: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(entry["directory"]) for entry in entries)
