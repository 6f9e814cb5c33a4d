"""A picture in its place: in a page as data, beside a Markdown text as a file."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

from tfamp.reporting.figures.picture import Picture


@dataclasses.dataclass(frozen=True)
class PlacedPicture:
    """A picture that is drawn.

    Attributes:
        picture: Its texts.
        path: Its PNG, relative to the page.
        uri: The PNG itself as a data URI.
    """

    picture: Picture
    path: str
    uri: str

    @classmethod
    def of(cls, picture: Picture, folder: Path, page_folder: Path) -> PlacedPicture:
        """A picture that was drawn into a folder, seen from the page's."""
        path = folder / picture.file
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        where = path.relative_to(page_folder).as_posix()
        return cls(picture, where, f"data:image/png;base64,{data}")
