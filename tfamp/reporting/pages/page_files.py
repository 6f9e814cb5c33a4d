"""The files of a page: each written whole, and nobody else's replaced."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tfamp.reporting.figures.picture import Picture
from tfamp.reporting.pages.page import Page
from tfamp.reporting.pages.placed_picture import PlacedPicture
from tfamp.run import schema
from tfamp.run.directory import write_json, written_whole
from tfamp.run.errors import InputError, setting

PICTURES = "pictures"
_TEXTS = ("json", "md", "html")
# Of a page's JSON; the second where it is a file of a schema.
_JSON_MARKS = ('"tfamp_version"', *(f'"{key}": "{value}"' for key, value in schema.MARK.items()))

# Draws a page's pictures into folders below one; they, by the folders' names.
Draw = Callable[[Path], Mapping[str, Sequence[Picture]]]


def no_pictures(folder: Path) -> Mapping[str, Sequence[Picture]]:
    """Draws nothing."""
    return {}


def write(page: Page, out: Path, draw: Draw = no_pictures) -> list[Path]:
    """Writes a page's files; NAME.html last, so that it never shows what is not there.

    Args:
        page: The page.
        out: The folder, made where it is not there. What is in it and is of no page stays.
        draw: Draws its pictures.

    Returns:
        The files that were written: the three texts, then the pictures.

    Raises:
        InputError: A file of the page's names is there that no page of this name is, and nothing
            was written; or the folder cannot be written.
    """
    texts = [out / f"{page.name}.{kind}" for kind in _TEXTS]
    try:
        _refuse_foreign_files(page.name, page.pictures, out)
        out.mkdir(parents=True, exist_ok=True)
        # First: whose the pictures are can be told from it, also after a kill.
        write_json(texts[0], dict(page.document))
        _remove_pictures(page, out / PICTURES)
        pictures = {
            name: [PlacedPicture.of(picture, out / PICTURES / name, out) for picture in drawn]
            for name, drawn in draw(out / PICTURES).items()
        }
        _write_text(texts[1], page.markdown(pictures))
        _write_text(texts[2], page.html(pictures))
    except OSError as error:
        raise InputError(
            f"Cannot write to {error.filename or out}: {error.strerror or error}. Set "
            f"{setting('out')} to a folder that you can write to."
        ) from error
    return texts + [out / placed.path for drawn in pictures.values() for placed in drawn]


def check(name: str, patterns: Sequence[str], out: Path) -> None:
    """Refuses early what `write` would refuse; changes nothing.

    Args:
        name: As `Page.name`.
        patterns: As `Page.pictures`.
        out: The folder.

    Raises:
        InputError: As for `write`.
    """
    writable = f"Set {setting('out')} to a folder that you can write to."
    above = out
    try:
        while not above.exists() and above != above.parent:
            above = above.parent
        if not above.is_dir():
            raise InputError(f"{above} is a file. {writable}")
        # A file without a name, which is gone when it is closed: asking for permission tells
        # nothing of a folder that takes no files.
        with tempfile.TemporaryFile(dir=above):
            _refuse_foreign_files(name, patterns, out)
    except OSError as error:
        raise InputError(
            f"Cannot write in {above}: {error.strerror or error}. {writable}"
        ) from error


def _refuse_foreign_files(name: str, patterns: Sequence[str], out: Path) -> None:
    """Refuses a folder where somebody else's files have the page's names."""
    texts = [out / f"{name}.{kind}" for kind in _TEXTS]
    foreign = [path for path in texts if path.exists() and not _is_ours(path)]
    pictures = out / PICTURES
    if not any(_is_ours(path) for path in texts):
        foreign += [path for pattern in patterns for path in pictures.glob(pattern)]
        foreign += [pictures] if pictures.exists() and not pictures.is_dir() else []
    if foreign:
        named = ", ".join(str(path) for path in foreign[:5])
        raise InputError(
            f"{named}: no {name} of tfamp wrote this, and a {name} is made of files of "
            f"that name. Set {setting('out')} to another folder, or move what is there."
        )


def _is_ours(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    if path.suffix == ".json":
        return any(mark in text for mark in _JSON_MARKS)
    return "Made by tfamp" in text


def _remove_pictures(page: Page, folder: Path) -> None:
    """Removes an earlier page's pictures: one left behind would be taken for the new one's."""
    for pattern in page.pictures:
        for path in folder.glob(pattern):
            path.unlink()


def _write_text(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        # A folder's name need not be UTF-8; Python then holds what no encoder takes.
        partial.write_bytes(text.encode("utf-8", "replace"))
