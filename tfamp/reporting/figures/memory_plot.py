"""The picture of how much memory each variant took."""

from __future__ import annotations

import numpy as np

from tfamp.reporting.figures import rows, style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.reporting.groups import Group

FILE = "memory.png"
_MEBIBYTE = 2**20


def memory(group: Group) -> Drawing | None:
    """A bar for each variant's device peak, a point for each seed."""
    peaks = [
        [
            peak / _MEBIBYTE
            for run in variant.runs
            if variant.has_comparable_costs and (peak := run.figures.device_peak_bytes) is not None
        ]
        for variant in group.variants
    ]
    everything = [peak for seeds in peaks for peak in seeds]
    if not everything:
        return None
    unit, size = ("GiB", 1024.0) if max(everything) >= 10 * 1024 else ("MiB", 1.0)
    drawn = new_figure(1.2 + 0.85 * len(peaks))
    axes = drawn.subplots()
    alt = []
    for index, (variant, found) in enumerate(zip(group.variants, peaks, strict=True)):
        look, row = style.style_of(index), -index
        estimate = variant.mean("device_peak_bytes")
        if estimate is None or not found:
            missing = variant.why_no_costs
            rows.write_name(axes, row, variant.label, missing)
            alt.append(f"{variant.label} was {missing}.")
            continue
        mean = estimate.value / _MEBIBYTE / size
        told = f"{mean:,.{1 if unit == 'MiB' else 2}f} {unit}"
        rows.write_name(axes, row, variant.label, told)
        axes.barh(row, mean, height=0.36, color=look.colour + "66", edgecolor=look.colour)
        if estimate.low is not None and estimate.high is not None:
            low, high = (end / _MEBIBYTE / size for end in (estimate.low, estimate.high))
            axes.errorbar(
                mean,
                row,
                xerr=[[mean - low], [high - mean]],
                color="#000000",
                capsize=6,
                linewidth=1.5,
            )
        # Spread over the bar's height, so that equal seeds can be counted.
        spread = np.linspace(-0.13, 0.13, len(found)) if len(found) > 1 else np.zeros(1)
        axes.plot(
            np.array(found) / size,
            row + spread,
            linestyle="none",
            marker=look.marker,
            markersize=max(3.5, min(7.0, 20 / len(found))),
            color=look.colour,
            markeredgecolor="white",
            markeredgewidth=0.5 if len(found) < 5 else 0,
            zorder=4,
        )
        alt.append(f"{variant.label}: {told} over {len(found)} seeds.")
    axes.set_xlim(left=0)
    label = f"Peak memory ({unit}) on\n{style.shown(group.device, 52)}"
    rows.finish(axes, len(peaks), label)
    return drawn, Picture(
        file=FILE,
        title="Device memory peak",
        alt=f"Bars of the peak memory on {group.device}, one a variant. " + " ".join(alt),
        caption=(
            f"The highest peak of any epoch on {group.device}. Bar: geometric mean over the seeds; "
            "black bracket: its 95% interval, where there are two seeds or more; points: the seeds."
        ),
    )
