"""The pictures of a fidelity."""

from __future__ import annotations

from pathlib import Path

from tfamp.reporting.figures import (
    error_plot,
    exponent_plot,
    layer_map,
    picture,
    size_plot,
    style,
)
from tfamp.reporting.figures.picture import Picture
from tfamp.run.fidelity import Fidelity

# Every name that `draw` may write.
FILES = (error_plot.FILE, layer_map.FILE, exponent_plot.FILE, size_plot.FILE)


def draw(fidelity: Fidelity, folder: Path) -> list[Picture]:
    """Draws what a fidelity measured; what it did not measure gets no picture.

    Args:
        fidelity: What was measured.
        folder: Where the PNGs go; it must be there.

    Returns:
        The pictures in the order of the page.
    """
    with style.house_style():
        drawings = [
            error_plot.error_over_scale(fidelity),
            layer_map.layers_and_scales(fidelity),
            exponent_plot.exponent_histograms(fidelity),
            size_plot.sizes(fidelity),
        ]
        return picture.save_all(drawings, folder)
