"""The pictures of a training that fails: its loss over steps, and which gradients became zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from experiments.loss_scaling.training import BLOCK
from experiments.loss_scaling.workloads import Workload
from tfamp.reporting.figures import style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure

LOSSES, UNDERFLOW = "failure.png", "underflow_by_layer.png"


def losses(
    workload: Workload,
    titles: Mapping[str, str],
    runs: Sequence[Mapping[str, Any]],
    constant_loss: float,
) -> Drawing:
    """The training loss of each run, a line a seed.

    Args:
        workload: What was trained.
        titles: What a scaling is called, by its name.
        runs: Of it, and of others with the same loss.
        constant_loss: The loss of having learned nothing.
    """
    scores: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        scores.setdefault((run["workload"], run["scaling"]), []).append(run["score"])
    styles = {key: style.style_of(index) for index, key in enumerate(scores)}
    labels = []
    for (name, scaling), found in scores.items():
        ends = sorted({f"{100 * score:.0f}" for score in (min(found), max(found))}, key=float)
        who = titles[scaling]
        if name != workload.name:
            who += f", {name.removeprefix(workload.name).strip(' ,')}"
        labels.append(style.shown(f"{who}: {' to '.join(ends)} % {workload.score_name}", 60))
    drawn = new_figure(3.4 + style.legend_inches([*labels, ""]))
    axes = drawn.subplots()
    axes.axhline(constant_loss, color=style.GREY, linewidth=1.4, linestyle=":")
    for run in runs:
        look = styles[run["workload"], run["scaling"]]
        there = [
            (BLOCK * (place + 0.5), value)
            for place, value in enumerate(run["losses"])
            if value is not None
        ]
        axes.plot(
            [step for step, _ in there],
            [value for _, value in there],
            color=look.colour,
            linestyle=look.line,
            linewidth=1.8,
        )
        if run["non_finite_from"] is not None:
            axes.plot(*there[-1], "kx", markersize=8, markeredgewidth=2.0, zorder=4)
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 4, 6)))
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlim(0, workload.num_steps)
    axes.set_xlabel("Training step")
    axes.set_ylabel("Training loss (log axis)")
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.line, linewidth=2.0)
        for look in styles.values()
    ]
    handles.append(Line2D([], [], color=style.GREY, linewidth=1.4, linestyle=":"))
    labels.append("the same said of every place: nothing learned")
    style.legend(drawn, handles, labels)
    ends = " ".join(
        f"{run['workload']}, {run['scaling']}, seed {run['seed']}: "
        f"from {run['first_loss']} to {run['last_loss']}."
        for run in runs
    )
    return drawn, Picture(
        file=LOSSES,
        title="Training with and without a loss scale",
        alt=f"Lines of the training loss over steps. {ends}",
        caption=f"Means over {BLOCK} steps, a line a seed. A cross: the loss was not finite.",
    )


def underflow(
    workload: Workload, titles: Mapping[str, str], found: Mapping[str, Mapping[str, Any]]
) -> Drawing:
    """By layer, the share of the activation gradients that are zero in float16 and not in float64.

    Args:
        workload: What was trained.
        titles: What a scaling is called, by its name.
        found: By scaling what `failure.by_layer` returns.
    """
    first = next(iter(found.values()))
    paths = list(first["layers"])
    styles = {step: style.style_of(index) for index, step in enumerate(first["steps"])}
    labels = [f"after {step} steps" for step in styles]
    drawn = new_figure(0.7 + 2.3 * len(found) + style.legend_inches(labels))
    panels = drawn.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    alt = []
    for axes, (name, shares) in zip(panels, found.items(), strict=True):
        for place, step in enumerate(shares["steps"]):
            look = styles[step]
            heights = [shares["layers"][path][place] for path in paths]
            if None in heights:
                continue
            axes.plot(
                range(1, len(paths) + 1),
                [100 * height for height in heights],
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=5,
                linewidth=1.6,
            )
        axes.set_title(style.shown(titles[name], 60), loc="left")
        axes.set_ylim(-3, 103)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f} %"))
        alt.append(f"{name}: {shares['all']} of all entries after {shares['steps']} steps.")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Convolution, from the image to the head")
    drawn.supylabel("Activation gradients lost to zero", fontsize=12)
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker)
        for look in styles.values()
    ]
    style.legend(drawn, handles, labels)
    return drawn, Picture(
        file=UNDERFLOW,
        title=f"Underflow by layer of the {workload.name}",
        alt=" ".join(alt),
        caption="Share of the gradients with respect to each convolution's outputs that float16 "
        "made zero and float64 did not, at the run's own weights; mean over the seeds.",
    )
