"""Pictures over a run: loss and accuracy by step and by time, and the loss scale."""

from __future__ import annotations

import dataclasses
import math
import statistics as robust
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tfamp.reporting import plot_style
from tfamp.reporting.comparison import Group, Variant
from tfamp.reporting.plot_style import Picture, Style
from tfamp.reporting.runs import Run
from tfamp.run import records

# Training losses are averaged over so many steps that about this many points are left.
_POINTS = 100
# A loss that spans more than this is drawn on a logarithmic axis.
_WIDE = 100.0


@dataclasses.dataclass(frozen=True)
class _Curve:
    """A figure of some seeds at the same steps.

    Attributes:
        steps: Steps, int [points].
        values: float64 [seeds, points]; NaN where a seed's figure is missing or not finite.
    """

    steps: np.ndarray
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean over seeds; NaN where one of them is."""
        return self.values.mean(axis=0)


def training_clock(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps and the seconds of training behind them, without tracing and compiling.

    It sums the windows of `time/step_ms`. The first call, which compiles, counts as the other
    steps of its window do. An epoch without a window takes its `time/epoch_sec`, or, where it
    is the first, the median step of the run.

    Returns:
        Steps and seconds at every mark, from step 0 on; None where the run has no times.
    """
    windows = run.series(records.STEP_TIME)
    median_ms = robust.median(ms for _, ms in windows) if windows else None
    steps, seconds = [0], [0.0]

    def advance(step: int, ms: float) -> None:
        if step > steps[-1]:
            seconds.append(seconds[-1] + (step - steps[-1]) * ms / 1e3)
            steps.append(step)

    for epoch, row in enumerate(run.epoch_rows):
        inside = [(step, ms) for step, ms in windows if steps[-1] < step <= row["step"]]
        for step, ms in inside:
            advance(step, ms)
        whole = row.get(records.EPOCH_TIME)
        if not inside and epoch > 0 and whole is not None and row["step"] > steps[-1]:
            advance(row["step"], 1e3 * whole / (row["step"] - steps[-1]))
        elif median_ms is not None:
            advance(row["step"], median_ms)
    return (np.array(steps), np.array(seconds)) if len(steps) > 1 else None


def _training_loss(variant: Variant) -> tuple[_Curve | None, int]:
    """The loss in means of some steps, and how many."""
    series = [dict(run.series(records.TRAIN_LOSS)) for run in variant.runs]
    last = max((step for losses in series for step in losses), default=0)
    if not last:
        return None, 1
    bin_steps = max(1, math.ceil(last / _POINTS))
    ends = np.arange(bin_steps, last + bin_steps, bin_steps)
    values = np.full((len(series), len(ends)), np.nan)
    for row, losses in zip(values, series, strict=True):
        for index, end in enumerate(ends):
            inside = [losses[s] for s in range(end - bin_steps + 1, end + 1) if s in losses]
            # A NaN among them makes the mean NaN: the gap is where the loss broke.
            if inside and all(map(math.isfinite, inside)):
                row[index] = math.fsum(inside) / len(inside)
    return _Curve(np.minimum(ends, last), values), bin_steps


def _at_rows(variant: Variant, name: str, kind: str, factor: float = 1.0) -> _Curve | None:
    rows = [
        {row["step"]: factor * row[name] for row in run.rows if row["kind"] == kind and name in row}
        for run in variant.runs
    ]
    steps = sorted({step for seed in rows for step in seed})
    if not steps:
        return None
    values = np.array([[seed.get(step, math.nan) for step in steps] for seed in rows])
    values[~np.isfinite(values)] = np.nan
    return _Curve(np.array(steps), values)


@dataclasses.dataclass(frozen=True)
class _Break:
    """Where a run's loss stops being a number.

    Attributes:
        seed: The run's seed.
        step: The first step whose loss is NaN or infinite.
        word: `NaN` or `infinite`.
        count: How many of its losses, of steps and of epochs, are so.
    """

    seed: int
    step: int
    word: str
    count: int


def breaks(variant: Variant) -> list[_Break]:
    """The seeds whose training or validation loss is not finite somewhere."""
    found = []
    for run in variant.runs:
        broken = [
            (row["step"], row[name])
            for row in run.rows
            for name in (records.TRAIN_LOSS, records.VALIDATION_LOSS)
            if not math.isfinite(row.get(name, 0.0))
        ]
        if broken:
            step, loss = min(broken, key=lambda entry: entry[0])
            word = "NaN" if math.isnan(loss) else "infinite"
            found.append(_Break(run.seed, step, word, len(broken)))
    return found


def curves(group: Group) -> list[tuple[Figure, Picture]]:
    """Loss and accuracy over steps, and over training time where it was measured."""
    found = [_curves(group, over_time=False)]
    if any(training_clock(run) is not None for run in group.runs):
        found.append(_curves(group, over_time=True))
    return found


def _curves(group: Group, over_time: bool) -> tuple[Figure, Picture]:
    labels = [plot_style.shown(variant.label) for variant in group.variants]
    labels += ["thin: training", "thick: validation"]
    drawn = plot_style.figure(7.0 + plot_style.legend_inches(labels))
    loss_axes, accuracy_axes = drawn.subplots(2, 1, sharex=True)
    handles, untimed, bins = [], [], 1
    broken: list[str] = []
    marked: list[tuple[Style, np.ndarray, Sequence[_Break]]] = []
    loss_values: list[np.ndarray] = []
    for index, variant in enumerate(group.variants):
        style = plot_style.style_of(index)
        handles.append(_handle(style))
        place = _Place.of(variant, over_time)
        if place is None:
            untimed.append(variant.label)
            continue
        loss, bins = _training_loss(variant)
        validation_loss = _at_rows(variant, records.VALIDATION_LOSS, "epoch")
        train = _at_rows(variant, records.TRAIN_ACCURACY, "step", 100.0)
        validation = _at_rows(variant, records.VALIDATION_ACCURACY, "epoch", 100.0)
        _draw_training(loss_axes, loss, place, style)
        # Of variants on the same points, the earlier show around the later.
        size = 11.0 - 5.0 * index / max(3, len(group.variants) - 1)
        _draw_validation(loss_axes, validation_loss, place, style, size)
        _draw_training(accuracy_axes, train, place, style)
        _draw_validation(accuracy_axes, validation, place, style, size)
        loss_values += [c.values for c in (loss, validation_loss) if c is not None]
        found = breaks(variant)
        if found:
            marked.append((style, place(np.array([entry.step for entry in found])), found))
            broken.append(_told(variant, found))
    is_logarithmic = _set_loss_scale(loss_axes, loss_values)
    loss_axes.set_ylabel("Loss" + (" (log axis)" if is_logarithmic else ""))
    accuracy_axes.set_ylabel("Accuracy (%)")
    accuracy_axes.set_xlabel(
        "Training time without compiling (s)" if over_time else "Training step"
    )
    accuracy_axes.xaxis.set_major_locator(MaxNLocator(6, integer=not over_time))
    accuracy_axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plot_style.plain_number(x)))
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlim(left=0)
    _mark_breaks(loss_axes, marked)
    plot_style.legend(drawn, [*handles, *_kinds()], labels)
    return drawn, _curves_picture(group, over_time, bins, broken, untimed)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a step of a variant lies on the axis: the step itself, or the seeds' mean seconds."""

    clocks: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, variant: Variant, over_time: bool) -> _Place | None:
        if not over_time:
            return cls(())
        clocks = [training_clock(run) for run in variant.runs]
        known = tuple(clock for clock in clocks if clock is not None)
        return cls(known) if known else None

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        if not self.clocks:
            return steps
        return np.mean([np.interp(steps, *clock) for clock in self.clocks], axis=0)


def _handle(style: Style) -> Line2D:
    return Line2D(
        [], [], color=style.colour, linestyle=style.line, marker=style.marker, linewidth=2
    )


def _kinds() -> list[Line2D]:
    """Legend entries for the two thicknesses of line."""
    grey = plot_style.GREY
    return [
        Line2D([], [], color=grey, linewidth=1.3),
        Line2D([], [], color=grey, linewidth=2.6, marker="o", markersize=8),
    ]


def _draw_training(axes: Axes, curve: _Curve | None, place: _Place, style: Style) -> None:
    if curve is None:
        return
    x = place(curve.steps)
    axes.plot(x, curve.mean, color=style.colour, linestyle=style.line, linewidth=1.3)
    if len(curve.values) > 1:
        low, high = _range(curve.values)
        # Its edge keeps the band visible where a single seed is left in it.
        axes.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0.6)


def _range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest seed at each point, NaN where none is finite."""
    some = np.isfinite(values).any(axis=0)
    low = np.where(some, np.where(np.isfinite(values), values, np.inf).min(axis=0), np.nan)
    high = np.where(some, np.where(np.isfinite(values), values, -np.inf).max(axis=0), np.nan)
    return low, high


def _draw_validation(
    axes: Axes, curve: _Curve | None, place: _Place, style: Style, size: float
) -> None:
    if curve is None:
        return
    x = place(curve.steps)
    every = max(1, len(x) // 10)
    # From the end backwards, so that the last epoch has its point.
    shown = np.arange(len(x) - 1, -1, -every)[::-1].tolist()
    axes.plot(
        x,
        curve.mean,
        color=style.colour,
        linestyle=style.line,
        linewidth=2.6,
        marker=style.marker,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.7,
        markevery=shown,
    )
    if len(curve.values) > 1:
        low, high = _range(curve.values)
        axes.vlines(x[shown], low[shown], high[shown], color=style.colour, linewidth=1.2)


def _mark_breaks(axes: Axes, marked: Sequence[tuple[Style, np.ndarray, Sequence[_Break]]]) -> None:
    """Marks where losses break, a row of the panel's top for each variant, with words."""
    if not marked:
        return
    frame = axes.get_xaxis_transform()
    right = axes.get_xlim()[1]
    # Room above the curves.
    to_axis, from_axis = axes.transScale, axes.transScale.inverted()
    low, high = (to_axis.transform((1.0, end))[1] for end in axes.get_ylim())
    axes.set_ylim(top=from_axis.transform((1.0, high + (high - low) * 0.11 * len(marked)))[1])
    share = 0.11 / (1 + 0.11 * len(marked))
    for row, (style, where, found) in enumerate(marked):
        height = 1 - share * (row + 0.5)
        axes.plot(
            where,
            [height] * len(where),
            transform=frame,
            linestyle="none",
            marker="X",
            markersize=9,
            color=style.colour,
            markeredgecolor="white",
            clip_on=False,
            zorder=5,
        )
        first = min(found, key=lambda entry: entry.step)
        several = f" ({len(found)} seeds)" if len(found) > 1 else ""
        is_late = where.min() > right - where.max()
        axes.annotate(
            f"{first.word} from step {first.step}{several}",
            (float(where.min() if is_late else where.max()), height),
            xycoords=frame,
            xytext=(-9 if is_late else 9, 0),
            textcoords="offset points",
            va="center",
            ha="right" if is_late else "left",
            color=style.colour,
            fontsize=11,
        )


def _told(variant: Variant, found: Sequence[_Break]) -> str:
    seeds = ", ".join(
        f"seed {entry.seed} from step {entry.step} ({entry.count} values)" for entry in found
    )
    return f"{variant.label}: the loss is not finite in {seeds}."


def _set_loss_scale(axes: Axes, values: Sequence[np.ndarray]) -> bool:
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.array([])
    if not finite.size:
        axes.text(
            0.5, 0.5, "no finite loss", transform=axes.transAxes, ha="center", color=plot_style.GREY
        )
        axes.set_yticks([])
        return False
    if finite.min() > 0 and finite.max() / finite.min() > _WIDE:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: plot_style.plain_number(x)))
        return True
    return False


def _curves_picture(
    group: Group, over_time: bool, bins: int, broken: Sequence[str], untimed: Sequence[str]
) -> Picture:
    axis = "training time" if over_time else "training steps"
    seeds = max(len(variant.runs) for variant in group.variants)
    many = (
        "Lines are means over the seeds; the band, and the bar at a point, reach from the lowest "
        "seed to the highest. "
        if seeds > 1
        else ""
    )
    smoothed = f"means of {bins} steps" if bins > 1 else "of every step"
    if over_time:
        caption = (
            "The same lines against the time in training steps, from their measured windows: "
            "tracing, compiling and validation are not in it. "
        )
    else:
        caption = (
            f"Thin lines: training loss ({smoothed}) and training accuracy. Thick lines with "
            f"points: validation, after each epoch. {many}"
        )
    if untimed:
        caption += f"Without measured times, so not drawn: {', '.join(untimed)}. "
    caption += " ".join(broken)
    ends = [_ends(variant) for variant in group.variants]
    return Picture(
        file="curves_over_time.png" if over_time else "curves_over_steps.png",
        title=f"Loss and accuracy over {axis}",
        alt=f"Two line charts over {axis}, one line a variant: loss above, accuracy below. "
        + " ".join(ends + list(broken)),
        caption=caption.strip(),
    )


def _ends(variant: Variant) -> str:
    loss, accuracy = variant.figure("train_loss"), variant.figure("validation_accuracy")
    parts = []
    if loss is not None:
        parts.append(f"training loss {_number(loss.value)}")
    if accuracy is not None:
        parts.append(f"validation accuracy {_number(100 * accuracy.value)} %")
    return f"{variant.label} ends at {' and '.join(parts)}." if parts else ""


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "NaN"
