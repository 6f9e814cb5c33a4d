"""The picture of the loss scale over training, for each way to choose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from experiments.loss_scaling.scalings import STATIC, Scaling
from tfamp.reporting.figures import style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure

FILE = "scale_over_time.png"
_LIGHT = "#999999"
# log2 between lines that would lie on each other.
_APART = 0.22


class Panel(NamedTuple):
    """What is drawn of a workload."""

    title: str
    runs: Sequence[tuple[Scaling, Mapping[str, Any]]]


def draw(panels: Sequence[Panel]) -> Drawing:
    """A panel for each workload; a line for each scaled run, a cross where a step was skipped."""
    moving = list(
        dict.fromkeys(
            scaling
            for panel in panels
            for scaling, _ in panel.runs
            if scaling.is_scaled and scaling.kind != STATIC
        )
    )
    styles = {scaling: style.style_of(index) for index, scaling in enumerate(moving)}
    handles = [Line2D([], [], color=_LIGHT, linewidth=1.2)]
    labels = ["static scales"]
    for scaling, look in styles.items():
        handles.append(Line2D([], [], color=look.colour, linestyle=look.line, linewidth=2.0))
        labels.append(style.shown(scaling.name, 60))
    handles.append(Line2D([], [], color="#000000", marker="x", linestyle="none"))
    labels.append("a skipped step")
    drawn = new_figure(0.4 + 3.2 * len(panels) + style.legend_inches(labels))
    alt = []
    for axes, panel in zip(
        drawn.subplots(len(panels), 1, squeeze=False, sharey=True)[:, 0], panels, strict=True
    ):
        axes.set_title(style.shown(panel.title, 60), loc="left")
        for scaling, run in panel.runs:
            if scaling.kind == STATIC:
                _line(axes, run, color=_LIGHT, linewidth=1.2)
        for index, (scaling, look) in enumerate(styles.items()):
            run = dict(panel.runs).get(scaling)
            if run is None:
                continue
            apart = _APART * (index - (len(styles) - 1) / 2)
            _line(axes, run, apart, color=look.colour, linestyle=look.line, linewidth=2.0)
            _skips(axes, run, apart)
            alt.append(_describe(panel, scaling, run))
        axes.yaxis.set_major_locator(MultipleLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda n, _: style.power_of_two(2.0**n)))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(left=0)
    axes.set_xlabel("Training step")
    drawn.supylabel("Loss scale (log₂ axis)", fontsize=12)
    style.legend(drawn, handles, labels)
    return drawn, Picture(
        file=FILE,
        title="Loss scale over training, for each way to choose it",
        alt=" ".join(alt),
        caption="The scale that each step's loss was multiplied by. Moving scales that would lie "
        f"on each other are drawn {_APART:g} apart in log2.",
    )


def _line(axes: Axes, run: Mapping[str, Any], apart: float = 0.0, **look: Any) -> None:
    changes = [*run["scale"]["changes"], [run["steps"], run["scale"]["log2_final"]]]
    axes.plot(
        [step for step, _ in changes],
        [log2 + apart for _, log2 in changes],
        drawstyle="steps-post",
        **look,
    )


def _skips(axes: Axes, run: Mapping[str, Any], apart: float) -> None:
    heights = [_at(run, step) + apart for step in run["first_skips"]]
    axes.plot(run["first_skips"], heights, "kx", markersize=5, markeredgewidth=1.2, zorder=4)


def _at(run: Mapping[str, Any], step: int) -> float:
    return next(log2 for first, log2 in reversed(run["scale"]["changes"]) if first <= step)


def _describe(panel: Panel, scaling: Scaling, run: Mapping[str, Any]) -> str:
    scale = run["scale"]
    return (
        f"{panel.title}, {scaling.name}: from 2^{scale['log2_initial']:g} to "
        f"2^{scale['log2_final']:g}, {run['skips']} skips."
    )
