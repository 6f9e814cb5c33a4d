"""The picture of gradients' exponents against what float16 holds, as Micikevicius et al. drew it.

Mixed Precision Training (2018), figure 3: the share of values by exponent, zeros apart, below
float16's range.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

from tfamp.reporting import exponents, fidelity_points
from tfamp.reporting.exponents import Shares
from tfamp.reporting.figures import log2_axis, style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.run.fidelity import Fidelity, Histogram

FILE = "exponents.png"
_COLOURS = {
    "lost": "#910427",
    "subnormal": "#f96a0b",
    "normal": "#7fbfef",
    "overflow": "#000000",
}
_ZERO = "#8a8a8a"
_NAMES = {
    "zero": "zero before",
    "lost": "becomes zero at scale 1",
    "subnormal": "subnormal: fewer bits",
    "normal": "all bits",
    "overflow": "becomes infinite",
}
# Powers of two below float16's range that have a bar of their own.
_DEEPEST = 40


def exponent_histograms(fidelity: Fidelity) -> Drawing | None:
    """A panel for activation gradients, one for those of weights; None without either."""
    found = [
        ("Activation gradients", exponents.total(x.activation_exponents for x in fidelity.layers)),
        ("Gradients of weights", exponents.total(x.weight_exponents for x in fidelity.layers)),
    ]
    shown = [(name, histogram) for name, histogram in found if histogram and histogram.counts]
    if not shown:
        return None
    advised = fidelity_points.advised_log2_scale(fidelity)
    scales = [0.0] if advised is None or advised == 0 else [0.0, advised]
    low, high = _reach([histogram for _, histogram in shown], scales)
    drawn = new_figure(1.9 + 0.3 * len(scales) + 2.2 * len(shown))
    heights = [0.3 * len(scales), *[2.0] * len(shown)]
    panels = drawn.subplots(1 + len(shown), 1, sharex=True, height_ratios=heights)
    _draw_ranges(panels[0], scales)
    kinds: set[str] = set()
    alt = []
    for axes, (name, histogram) in zip(panels[1:], shown, strict=True):
        kinds |= _draw(axes, histogram, low)
        for scale, dashes in zip(scales, ("solid", (0, (4, 2))), strict=False):
            for limit in _limits(scale):
                axes.axvline(limit, color="#000000", linestyle=dashes, linewidth=1.3)
        told = _told(histogram, scales)
        axes.set_title(f"{name}: become zero\n{told}", loc="left")
        alt.append(_describe(name, exponents.shares(histogram), told))
    last = panels[-1]
    log2_axis.below(last, low - 4.2, high + 0.5, "Size (log₂ axis)")
    _name_zero(last, low)
    drawn.supylabel("Share of all entries (log axis)", fontsize=12)
    kinds_in_order = [kind for kind in _NAMES if kind in kinds]
    style.legend(
        drawn,
        [Patch(color=_COLOURS.get(kind, _ZERO)) for kind in kinds_in_order],
        [_NAMES[kind] for kind in kinds_in_order],
    )
    return drawn, Picture(
        file=FILE,
        title="Exponents of gradients against float16's range",
        alt="Histograms over an axis of powers of two. " + " ".join(alt),
        caption=_caption(fidelity, scales),
    )


def _limits(log2_scale: float) -> list[float]:
    """What float16 holds of gradients that a scale multiplies: smallest, with all bits, largest."""
    return [
        limit - log2_scale
        for limit in (exponents.SMALLEST, exponents.SMALLEST_NORMAL, exponents.LARGEST)
    ]


def _reach(histograms: Sequence[Histogram], scales: Sequence[float]) -> tuple[int, int]:
    """The first and the last exponent that have a bar."""
    lowest = min(_limits(max(scales))[0], exponents.SMALLEST)
    first = min(histogram.first for histogram in histograms)
    low = max(min(first, round(lowest) - 2), round(lowest) - _DEEPEST)
    last = max(histogram.first + len(histogram.counts) for histogram in histograms)
    return low, max(last, round(exponents.LARGEST) + 1)


def _draw_ranges(axes: Axes, scales: Sequence[float]) -> None:
    """A bar for what float16 holds at each scale."""
    for row, scale in enumerate(scales):
        smallest, normal, largest = _limits(scale)
        axes.barh(-row, normal - smallest, left=smallest, color=_COLOURS["subnormal"], height=0.8)
        axes.barh(-row, largest - normal, left=normal, color=_COLOURS["normal"], height=0.8)
        name = "float16 at scale 1" if scale == 0 else f"at scale {style.power_of_two(2.0**scale)}"
        axes.text((normal + largest) / 2, -row, name, ha="center", va="center", fontsize=11.5)
    axes.set_ylim(-len(scales) + 0.5, 0.5)
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(bottom=False, labelbottom=False)


def _draw(axes: Axes, histogram: Histogram, low: int) -> set[str]:
    """Draws the bars; returns which kinds there are."""
    entries = histogram.zeros + sum(histogram.counts)
    bars: dict[int, int] = {}
    for exponent, count in enumerate(histogram.counts, start=histogram.first):
        bars[max(exponent, low)] = bars.get(max(exponent, low), 0) + count
    drawn = [(exponent, count) for exponent, count in bars.items() if count]
    kinds = set()
    if histogram.zeros:
        axes.bar(low - 3, histogram.zeros / entries, width=2, align="edge", color=_ZERO)
        kinds.add("zero")
    for exponent, count in drawn:
        kind = exponents.becomes(exponent, 0.0)
        axes.bar(
            exponent,
            count / entries,
            width=1,
            align="edge",
            color=_COLOURS[kind],
            edgecolor="white",
            linewidth=0.6,
        )
        kinds.add(kind)
    axes.set_yscale("log")
    least = min([count for _, count in drawn]) / entries
    axes.set_ylim(least / 2, 1.5)
    axes.yaxis.set_major_locator(LogLocator(10, numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{style.plain_number(100 * y)} %"))
    return kinds


def _name_zero(axes: Axes, low: int) -> None:
    """Puts a tick below the bar of zeros, among those of the powers."""
    ticks = [tick for tick in axes.get_xticks() if low + 3 <= tick <= axes.get_xlim()[1]]
    names = [axes.xaxis.get_major_formatter()(tick) for tick in ticks]
    axes.xaxis.set_major_locator(FixedLocator([low - 2, *ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter(["0", *names]))


def _told(histogram: Histogram, scales: Sequence[float]) -> str:
    """What becomes zero, of what is not zero before: at scale 1, and as advised."""
    parts = []
    for scale in scales:
        lost = exponents.shares(histogram, scale).lost_of_non_zero
        where = "scale 1" if scale == 0 else style.power_of_two(2.0**scale)
        parts.append(f"{100 * lost:.3g} % at {where}")
    return ", ".join(parts)


def _describe(name: str, found: Shares, told: str) -> str:
    return (
        f"{name}: {100 * found.zero:.3g} % of all entries are zero before; of the others become "
        f"zero {told}."
    )


def _caption(fidelity: Fidelity, scales: Sequence[float]) -> str:
    told = (
        f"Of all layers together, in {fidelity.reference}, before any loss scale. Solid lines: the "
        "smallest number that float16 holds, the smallest with all bits, and the largest. What "
        "becomes zero is a share of the entries that are not zero before: those below half of the "
        "smallest. "
    )
    if len(scales) > 1:
        told += (
            f"Dashed lines: the same limits where {style.power_of_two(2.0 ** scales[1])}, the "
            "advised scale, multiplies the gradients."
        )
    else:
        told += "No scale is advised that would move these limits."
    return told
