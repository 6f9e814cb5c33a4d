"""A picture of a page: its texts, its frame, and its file.

A picture is seen about 350 pixels wide on a phone. At 6 inches of width and 12 points its text is
then 10 pixels high, which is the smallest that reads well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

WIDTH_INCHES = 6.0
DOTS_PER_INCH = 160


@dataclasses.dataclass(frozen=True)
class Picture:
    """The texts of a picture.

    Attributes:
        file: Its file name.
        title: What it shows, in a few words.
        alt: What is to be seen in it, in sentences, for who cannot see it.
        caption: How to read it: what was averaged, what the marks mean.
    """

    file: str
    title: str
    alt: str
    caption: str


# A figure and what is told of it.
Drawing = tuple[Figure, Picture]


def new_figure(height_inches: float) -> Figure:
    """An empty figure of every picture's width, on a canvas that needs no display."""
    drawn = Figure(figsize=(WIDTH_INCHES, height_inches), facecolor="white", layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def save(drawn: Figure, path: Path) -> None:
    """Writes a PNG of 256 colours, a third of the size of one with all; no field has the time."""
    drawn.set_dpi(DOTS_PER_INCH)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)


def save_all(drawings: Iterable[Drawing | None], folder: Path) -> list[Picture]:
    """Writes the PNGs of what was drawn; None is a picture that had nothing to show."""
    found = [drawing for drawing in drawings if drawing is not None]
    for drawn, picture in found:
        save(drawn, folder / picture.file)
    return [picture for _, picture in found]
