"""The picture of how large each layer's output and gradient are, against float16's range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.patches import Patch

from tfamp.reporting import exponents, fidelity_points
from tfamp.reporting.figures import layer_rows, log2_axis, style
from tfamp.reporting.figures.picture import Drawing, Picture, new_figure
from tfamp.run.fidelity import Fidelity, LayerFidelity

FILE = "sizes.png"
# Where float16 has nothing, and where it has fewer bits.
NOTHING, FEWER = "#c9c9c9", "#ececec"
# Powers of two that are shown beyond float16's range.
_BEYOND = 3.0


def sizes(fidelity: Fidelity) -> Drawing | None:
    """A row a layer; None where no layer has a size that is a power of two."""
    layers = [x for x in fidelity.layers if any(map(_is_drawn, _sizes(x)))]
    if not layers:
        return None
    advised = fidelity_points.advised_log2_scale(fidelity)
    outputs, gradients = (list(each) for each in zip(*map(_sizes, layers), strict=True))
    curves = [
        ("outputs", outputs, style.STYLES[0]),
        ("activation gradients", gradients, style.STYLES[1]),
    ]
    if advised:
        scaled = [None if size is None else size + advised for size in gradients]
        label = f"the same, times {style.power_of_two(2.0**advised)}, the advised scale"
        curves.append((label, scaled, style.STYLES[2]))
    drawn = new_figure(2.2 + layer_rows.inches(len(layers)))
    axes = drawn.subplots()
    found = [size for _, each, _ in curves for size in each if _is_drawn(size)]
    low = min(exponents.SMALLEST - _BEYOND, min(found) - 1)
    high = max(exponents.LARGEST + _BEYOND, max(found) + 1)
    for begin, end in ((low, exponents.SMALLEST), (exponents.LARGEST, high)):
        axes.axvspan(begin, end, color=NOTHING, linewidth=0, zorder=0)
    axes.axvspan(exponents.SMALLEST, exponents.SMALLEST_NORMAL, color=FEWER, linewidth=0, zorder=0)
    handles: list[Artist] = []
    for _, each, look in curves:
        (line,) = axes.plot(
            [math.nan if not _is_drawn(size) else size for size in each],
            range(len(layers)),
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=5 if len(layers) <= 40 else 3,
            linewidth=1.5,
        )
        handles.append(line)
    handles += [Patch(color=NOTHING), Patch(color=FEWER)]
    labels = [label for label, *_ in curves]
    labels += ["float16 holds nothing there", "with fewer bits there (subnormal)"]
    layer_rows.finish(axes, [layer.path for layer in layers])
    log2_axis.below(axes, low, high, "Root mean square (log₂ axis)")
    style.legend(drawn, handles, labels)
    left_out = len(fidelity.layers) - len(layers)
    return drawn, Picture(
        file=FILE,
        title="Sizes of outputs and of activation gradients",
        alt=_alt(layers, outputs, gradients),
        caption=(
            "Root mean square of what each layer returns, and of the gradient with respect to it, "
            f"in {fidelity.reference}; the first layer on top. A root mean square says where the "
            "larger entries are: many are far smaller. "
            + layer_rows.told(len(layers), left_out, "neither is there, or only zeros")
        ).strip(),
    )


def _sizes(layer: LayerFidelity) -> tuple[float | None, float | None]:
    return layer.output_log2_size, layer.gradient_log2_size


def _is_drawn(size: float | None) -> bool:
    return size is not None and math.isfinite(size)


def _alt(
    layers: Sequence[LayerFidelity],
    outputs: Sequence[float | None],
    gradients: Sequence[float | None],
) -> str:
    told = f"Line chart of {len(layers)} layers on an axis of powers of two. "
    for name, each in (("Outputs", outputs), ("Activation gradients", gradients)):
        found = [size for size in each if size is not None and math.isfinite(size)]
        if found:
            told += f"{name} are between 2^{min(found):.1f} and 2^{max(found):.1f}. "
    return told.strip()
