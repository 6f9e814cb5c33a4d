"""fidelity.json: what each precision and loss scale leaves of a model's gradient.

Each key is declared here, and only here; `tfamp.gradient_fidelity` returns it as an object.
"""

from __future__ import annotations

import dataclasses
import shlex

from tfamp.run import schema
from tfamp.run.json_types import Exponent
from tfamp.run.schema import key

# Under which name fidelity writes it.
FIDELITY = "fidelity.json"
# The precision that is measured at every scale, and all that are.
SCALED = "mixed_float16"
# Beyond it, 2^k or 2^-k is no scale that a float32 has room to be unscaled from.
LARGEST_LOG2_SCALE = 100
PRECISIONS = ("float32", "mixed_bfloat16", SCALED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """What one precision, at one loss scale, leaves of a gradient."""

    precision: str = key("`float32`, `mixed_bfloat16`, `mixed_float16`, ...")
    log2_scale: float | None = key("log2 of the static loss scale; null where nothing is scaled")
    relative_error: float | None = key(
        "L2 norm of the difference from the reference, over the reference's norm or the layer's "
        "floor, whichever is larger; null where an entry is not finite"
    )
    cosine: float | None = key(
        "of the angle to the reference; null where an entry is not finite or a side is all zero"
    )
    underflow_fraction: float = key("share of the entries that are zero here, not in the reference")
    subnormal_fraction: float = key("share of the entries that are subnormal in what holds them")
    non_finite_fraction: float = key("share of the entries that are NaN or infinite")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """The loss scales, all powers of two between two, at which a gradient is as good as it gets."""

    log2_min: Exponent = key("the smallest: below it, the error exceeds the valley's floor by 10 %")
    log2_max: Exponent = key("the largest: above it something is not finite, or the error grows")
    is_open: bool = key("whether `log2_max` is only the largest scale that was tried", absent=False)

    def holds(self, *scales: float) -> bool:
        """Whether none of some loss scales is outside; above an open end nothing is."""
        return not any(self.is_below(scale) or self.is_above(scale) for scale in scales)

    def is_below(self, scale: float) -> bool:
        """Whether a loss scale is smaller than all that are inside."""
        return scale < 2.0**self.log2_min

    def is_above(self, scale: float) -> bool:
        """Whether a loss scale is known to be larger than all that are inside."""
        return not self.is_open and scale > 2.0**self.log2_max

    def __str__(self) -> str:
        is_open = ", the largest that was tried" if self.is_open else ""
        return f"2^{self.log2_min} to 2^{self.log2_max}{is_open}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many entries have which exponent, floor(log2 |x|)."""

    first: Exponent = key("the exponent of the first count")
    counts: tuple[int, ...] = key("entries by exponent, upwards")
    zeros: int = key("entries that are exactly zero")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFidelity:
    """One layer; several calls of it count together."""

    path: str = key("the layer's path")
    computes_in: str = key("its compute dtype under the 16-bit policies")
    points: tuple[Point, ...] = key("its weights' gradients; empty where it has none", absent=())
    activation_points: tuple[Point, ...] = key(
        "gradients with respect to its outputs; empty where none reach it", absent=()
    )
    window: Window | None = key("its scales under mixed_float16; null with `why`", absent=None)
    why: str | None = key("why it has no window", absent=None)
    # In the reference, unscaled.
    weight_exponents: Histogram | None = key("of its weights' gradients", absent=None)
    activation_exponents: Histogram | None = key(
        "of the gradients with respect to its outputs", absent=None
    )
    output_log2_size: float | None = key("log2 of the root mean square of its outputs", absent=None)
    gradient_log2_size: float | None = key(
        "log2 of the root mean square of the gradients with respect to its outputs", absent=None
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankedLayer:
    """What is gained by one layer alone in float32, at the best scale."""

    path: str = key("the layer's path")
    relative_error: float | None = key("the whole gradient's, with this layer in float32")
    removed: float | None = key("share of the error that goes; below 0 where it grows")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorBudget:
    """Where the error of mixed_float16's gradient comes from; relative to the reference's norm."""

    forward: float | None = key("from the way forward: no scale cures it")
    backward: float | None = key("from the way back, at the best scale")
    underflow_at_scale_1: float | None = key("what scale 1 adds to that")
    best_log2_scale: Exponent | None = key("the scale of the smallest error", absent=None)
    num_examples: int | None = key("examples of the batch that layers were ranked on", absent=None)
    layers: tuple[RankedLayer, ...] = key("by what their float32 removes, most first", absent=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """What to set."""

    static_scale: float | None = key("a static scale amid the window; null where there is none")
    initial_scale: float | None = key("where a dynamic scale should start")
    expected_skips: int | None = key(
        "steps that a dynamic scale skips first where it starts at the default scale; none from "
        "`initial_scale`"
    )
    float32_layers: tuple[str, ...] = key("layers to compute in float32", absent=())
    flags: tuple[str, ...] = key("the same as flags of tfamp.train", absent=())
    summary: str = key("the same in a sentence or two", absent="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity(schema.JsonFile):
    """All of fidelity.json."""

    file = FIDELITY

    model: str = key("the model's name")
    dataset: str | None = key("the data set's name; null where a script does not tell")
    device: str = key("the device, as `CPU:0 (its name)`")
    jit_compile: bool = key("whether XLA compiled the passes")
    training: bool = key("whether dropout dropped and BatchNormalization took the batch's values")
    batch_size: int = key("examples of a batch")
    num_batches: int = key("batches; errors are over all of them")
    seed: int = key("the seed of dropout and augmentation")
    command_line: tuple[str, ...] | None = key("what was typed; null from a script")
    versions: dict[str, str] = key("versions of Python, tfamp and what it stands on, by package")
    reference: str = key("what all is compared with: float64")
    precisions: tuple[Point, ...] = key("the whole model's weights' gradients")
    activation_precisions: tuple[Point, ...] = key(
        "gradients with respect to all layers' outputs", absent=()
    )
    layers: tuple[LayerFidelity, ...] = key("in the order of the way forward")
    window: Window | None = key("scales that are in every layer's window; null with `why`")
    why: str | None = key("why there is no window", absent=None)
    error_budget: ErrorBudget | None = key("null where mixed_float16 was not asked for")
    advice: Advice | None = key("null where mixed_float16 was not asked for")
    settled_log2_scale: float | None = key(
        "log2 of the scale that the run of --run ended with; null without one", absent=None
    )
    limits: tuple[str, ...] = key("what was left out, and what to know, in sentences", absent=())

    def show(self) -> None:
        """Prints what it says of the whole model: errors, window, budget, advice, limits."""
        print("\n".join(_lines(self)))


_SHOWN_LAYERS = 5


def _lines(fidelity: Fidelity) -> list[str]:
    """What `show` prints, line by line."""
    batches = "batch" if fidelity.num_batches == 1 else "batches"
    return [
        f"{fidelity.model}: its gradient against {fidelity.reference}, on "
        f"{fidelity.num_batches} {batches} of {fidelity.batch_size}, {fidelity.device}",
        "",
        *_table(fidelity.precisions),
        "",
        f"window      {_window(fidelity.window, fidelity.why)}",
        *_budget(fidelity.error_budget),
        *_advice(fidelity.advice),
        *(f"note        {limit}" for limit in fidelity.limits),
    ]


def _table(points: tuple[Point, ...]) -> list[str]:
    head = ("precision", "scale", "error", "cosine", "underflow", "subnormal", "non-finite")
    rows = [
        (
            point.precision,
            "" if point.log2_scale is None else f"2^{point.log2_scale:g}",
            _figure(point.relative_error, ".2e"),
            _figure(point.cosine, ".6f"),
            _figure(point.underflow_fraction, ".4%"),
            _figure(point.subnormal_fraction, ".4%"),
            _figure(point.non_finite_fraction, ".4%"),
        )
        for point in points
    ]
    return [
        f"{name:<16}" + "".join(f"{cell:>11}" for cell in cells) for name, *cells in (head, *rows)
    ]


def _window(window: Window | None, why: str | None) -> str:
    return f"none: {why}" if window is None else str(window)


def _budget(budget: ErrorBudget | None) -> list[str]:
    if budget is None:
        return []
    best = "" if budget.best_log2_scale is None else f" at 2^{budget.best_log2_scale}"
    lines = [
        f"error       {_figure(budget.forward, '.2e')} from the way forward, "
        f"{_figure(budget.backward, '.2e')} from the way back{best}; scale 1 adds "
        f"{_figure(budget.underflow_at_scale_1, '.2e')}"
    ]
    for layer in budget.layers[:_SHOWN_LAYERS]:
        lines.append(f"  {_figure(layer.removed, '6.1%')} goes with {layer.path} in float32")
    if len(budget.layers) > _SHOWN_LAYERS:
        lines.append(f"  ... and {len(budget.layers) - _SHOWN_LAYERS} more layers")
    return lines


def _advice(advice: Advice | None) -> list[str]:
    if advice is None:
        return []
    flags = [f"flags       {shlex.join(advice.flags)}"] if advice.flags else []
    return [f"advice      {advice.summary}", *flags]


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
