"""A table of a page, as the templates show it in HTML and in Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tfamp.reporting.pages import formatting


@dataclasses.dataclass(frozen=True)
class TableCell:
    """A cell of a table.

    Attributes:
        text: Its value.
        small: What stands beneath it: an interval or a remark.
        word: A verdict, such as `faster`.
        tone: Whether the verdict is `good`, `bad` or `neutral`, which is its colour.
        is_number: Whether it is set flush right.
    """

    text: str
    small: str = ""
    word: str = ""
    tone: str = "neutral"
    is_number: bool = True


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a header row, and a header in the first cell of each row.

    Attributes:
        caption: What it shows, a sentence.
        header: The first row.
        rows: A header text and cells, as many as the header has after its first; none in a row
            that is the title of those below it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[TableCell, ...]], ...]

    @property
    def sides(self) -> list[bool]:
        """Whether each column after the first holds numbers."""
        full = next((row for _, row in self.rows if row), ())
        return [cell.is_number for cell in full]


def words(text: str) -> TableCell:
    """A cell of text, which is set flush left."""
    return TableCell(text, is_number=False)


def of_versions(versions: Mapping[str, Sequence[str]], caption: str) -> Table | None:
    """Packages and their versions, a row a package; None for none."""
    rows = tuple((package, (words(formatting.listed(seen)),)) for package, seen in versions.items())
    return Table(caption, ("Package", "Version"), rows) if rows else None
