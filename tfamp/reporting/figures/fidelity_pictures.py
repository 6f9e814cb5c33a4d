"""The pictures of a fidelity."""

from __future__ import annotations

from pathlib import Path

from tfamp.reporting.figures import error_plot, picture, style
from tfamp.reporting.figures.picture import Picture
from tfamp.run.fidelity import Fidelity

# Every name that `draw` may write.
FILES = (error_plot.FILE,)


def draw(fidelity: Fidelity, folder: Path) -> list[Picture]:
    """Draws what a fidelity measured; what it did not measure gets no picture.

    Args:
        fidelity: What was measured.
        folder: Where the PNGs go; it must be there.

    Returns:
        The pictures in the order of the page.
    """
    with style.house_style():
        return picture.save_all([error_plot.error_over_scale(fidelity)], folder)
