"""Parts of a page in GitHub's Markdown."""

from __future__ import annotations

import re
from typing import Any

import markupsafe

from tfamp.reporting.pages import formatting
from tfamp.reporting.pages.placed_picture import PlacedPicture
from tfamp.reporting.pages.table import Table


def escape(value: Any) -> str:
    """A text that Markdown shows as it is, in a cell of a table too."""
    escaped = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", formatting.one_line(value))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Within a word an underscore is one; elsewhere it would begin emphasis.
    escaped = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)
    # At the start of a line these would begin a list or a rule.
    escaped = re.sub(r"^(\s*)([-+=])(?![A-Za-z0-9.])", r"\1\\\2", escaped)
    return re.sub(r"^(\s*\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)


def code(text: str) -> markupsafe.Markup:
    """A line to copy, as a block of code."""
    return markupsafe.Markup(f"    {formatting.one_line(text)}")


def table(shown: Table) -> markupsafe.Markup:
    """A table in GitHub's Markdown."""
    sides = ["---:" if is_number else "---" for is_number in shown.sides]
    lines = ["| " + " | ".join(map(escape, shown.header)) + " |"]
    lines.append("| " + " | ".join(["---", *sides]) + " |")
    for name, row in shown.rows:
        if not row:
            lines.append(f"| **{escape(name)}** |" + " |" * len(sides))
            continue
        parts = [name]
        for cell in row:
            small = f" ({cell.small})" if cell.small else ""
            parts.append(f"{cell.text}{small}" + (f", {cell.word}" if cell.word else ""))
        lines.append("| " + " | ".join(map(escape, parts)) + " |")
    return markupsafe.Markup("\n".join(lines))


def picture(placed: PlacedPicture) -> markupsafe.Markup:
    """A picture under its title, above its caption."""
    shown = placed.picture
    return markupsafe.Markup(
        f"### {escape(shown.title)}\n\n![{escape(shown.alt)}]({escape(placed.path)})\n\n"
        f"{escape(shown.caption)}"
    )
