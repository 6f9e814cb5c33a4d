"""The pictures of a group of runs: curves, the loss scale, step times, memory."""

from __future__ import annotations

from pathlib import Path

from tfamp.reporting.figures import (
    curve_plots,
    memory_plot,
    picture,
    scale_plot,
    step_time_plot,
    style,
)
from tfamp.reporting.figures.picture import Picture
from tfamp.reporting.groups import Group

# Every name that `draw` may write.
FILES = (*curve_plots.FILES, scale_plot.FILE, step_time_plot.FILE, memory_plot.FILE)


def draw(group: Group, folder: Path) -> list[Picture]:
    """Draws what a group's runs measured; what none of them measured gets no picture.

    Args:
        group: The runs.
        folder: Where the PNGs go; it must be there.

    Returns:
        The pictures in the order of the page.
    """
    with style.house_style():
        drawings = [
            *curve_plots.curves(group),
            scale_plot.loss_scale(group),
            step_time_plot.step_times(group),
            memory_plot.memory(group),
        ]
        return picture.save_all(drawings, folder)
