"""What experiments/loss_scaling.md tells of the two trained models: their fidelity.json."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.loss_scaling.told_without import MODELS
from experiments.tables import share, table, two_to_the
from tfamp.reporting import exponents, fidelity_points
from tfamp.run.fidelity import FIDELITY, ErrorBudget, Fidelity, Histogram, Point, Window

RESULTS = Path(__file__).parents[1] / "results" / "loss_scaling"

# Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2, and NVIDIA's guide to mixed precision:
# activation gradients of Multibox SSD, in percent of all of them.
PUBLISHED_ZERO, PUBLISHED_LOST, PUBLISHED_LEFT = 66.8, 31.0, 5.3
# log2 of what does not matter to training, by the same section.
UNIMPORTANT = -27
# A scale loses little where it loses at most this share of what is not zero.
LITTLE = 0.001
SHOWN_SCALES = (0, 4, 8, 12, 15, 18, 20, 22, 24)


@functools.cache
def fidelity_of(model: str) -> Fidelity:
    """The committed fidelity of a model."""
    return Fidelity.from_json(json.loads((RESULTS / model / FIDELITY).read_text()))


def activation_gradients(fidelity: Fidelity) -> Histogram:
    """The exponents of the gradients with respect to all layers' outputs, unscaled, in float64."""
    found = exponents.total(layer.activation_exponents for layer in fidelity.layers)
    if found is None or not found.counts:
        raise ValueError(f"{fidelity.model} has no activation gradients in its {FIDELITY}.")
    return found


def scale_that_keeps(histogram: Histogram, lost_of_non_zero: float) -> int:
    """log2 of the smallest scale at which float16 loses at most a share of what is not zero."""
    log2_scale = 0
    while exponents.shares(histogram, log2_scale).lost_of_non_zero > lost_of_non_zero:
        log2_scale += 1
    return log2_scale


def largest_exponent(histogram: Histogram) -> int:
    """The exponent of the largest entry."""
    return histogram.first + len(histogram.counts) - 1


def share_between(histogram: Histogram, low: int, high: int) -> float:
    """Of all entries, the share whose size is in [2^low, 2^high)."""
    sizes = enumerate(histogram.counts, start=histogram.first)
    entries = histogram.zeros + sum(histogram.counts)
    return sum(count for exponent, count in sizes if low <= exponent < high) / entries


def published_table() -> str:
    """The published histogram's form, on three models."""
    published = (PUBLISHED_ZERO, PUBLISHED_LOST, PUBLISHED_LEFT)
    unknown = "not published"
    rows = [("Multibox SSD, published", *(f"{one:g} %" for one in published), unknown, unknown)]
    for model, name in MODELS.items():
        histogram = activation_gradients(fidelity_of(model))
        found = exponents.shares(histogram)
        left = found.subnormal + found.normal + found.overflow
        keeps = two_to_the(scale_that_keeps(histogram, LITTLE))
        rows.append(
            (name, share(found.zero), share(found.lost), share(left), share(found.subnormal), keeps)
        )
    scale = f"scale that loses {share(LITTLE)} or less of the others"
    head = ("activation gradients", "zero before", "become zero in float16", "are left",
            "of all, subnormal", scale)  # fmt: skip
    return table(head, rows)


def zeros_table() -> str:
    """Where the zeros of activation gradients are: by the kind of layer that made the output."""
    rows = []
    for model, name in MODELS.items():
        kinds: dict[str, list[Histogram]] = {}
        for layer in fidelity_of(model).layers:
            if layer.activation_exponents is not None:
                kinds.setdefault(kind_of(layer.path), []).append(layer.activation_exponents)
        for kind, histograms in kinds.items():
            total = exponents.total(histograms)
            if total is not None:
                found = exponents.shares(total)
                outputs = "output" if len(histograms) == 1 else "outputs"
                of = f"{len(histograms)} {outputs} of `{kind}`"
                rows.append((f"{name}, {of}", share(found.zero), share(found.lost)))
    return table(("gradients with respect to", "zero before", "become zero in float16"), rows)


def kind_of(path: str) -> str:
    """A layer's kind: the last part of its name, less its number."""
    last = path.rpartition("/")[2]
    return last.rpartition("_")[2].rstrip("0123456789") or last


def errors_table() -> str:
    """The whole gradient's error in each precision, and under some scales."""
    rows: list[tuple[str, ...]] = []
    for model, name in MODELS.items():
        points = fidelity_of(model).precisions
        for point in fidelity_points.unscaled(points):
            rows.append((f"{name}, {point.precision}", "none", *_of_point(point)))
        for point in fidelity_points.scaled(points):
            if point.log2_scale in SHOWN_SCALES:
                scale = two_to_the(point.log2_scale) if point.log2_scale else "none"
                rows.append((f"{name}, {point.precision}", scale, *_of_point(point)))
    head = ("gradient of the weights", "scale", "error", "become zero", "subnormal", "not finite")
    return table(head, rows)


def _of_point(point: Point) -> tuple[str, ...]:
    fractions = (point.underflow_fraction, point.subnormal_fraction, point.non_finite_fraction)
    return (_error(point.relative_error), *map(share, fractions))


def _error(error: float | None) -> str:
    return "not finite" if error is None else share(error)


def ends(window: Window | None) -> str:
    """A window's two ends."""
    return "none" if window is None else f"{two_to_the(window.log2_min)} to {_end(window)}"


def _end(window: Window) -> str:
    return two_to_the(window.log2_max) + (" or more" if window.is_open else "")


def budget_table() -> str:
    """Where the error comes from."""
    rows = []
    for model, name in MODELS.items():
        found = _budget(fidelity_of(model))
        rows.append(
            (
                name,
                _error(found.forward),
                _error(found.backward),
                _error(found.underflow_at_scale_1),
                ends(fidelity_of(model).window),
                _advised(fidelity_of(model)),
            )
        )
    head = ("model", "from the way forward", "from the way back, at the best scale",
            "added without a scale", "window", "advised static scale")  # fmt: skip
    return table(head, rows)


def _budget(fidelity: Fidelity) -> ErrorBudget:
    if fidelity.error_budget is None:
        raise ValueError(f"{fidelity.model} has no error budget in its {FIDELITY}.")
    return fidelity.error_budget


def _advised(fidelity: Fidelity) -> str:
    advised = fidelity_points.advised_log2_scale(fidelity)
    return "none" if advised is None else two_to_the(advised)


def _best(points: Sequence[Point]) -> Point:
    found = fidelity_points.best(points)
    if found is None:
        raise ValueError("No scale leaves the gradient finite.")
    return found


def _of_model(model: str) -> dict[str, Callable[[], str]]:
    def histogram() -> Histogram:
        return activation_gradients(fidelity_of(model))

    def settled() -> str:
        log2_scale = fidelity_of(model).settled_log2_scale
        return "none" if log2_scale is None else two_to_the(log2_scale)

    def unscaled_error() -> str:
        point = fidelity_points.at(fidelity_of(model).precisions, 0)
        return "not measured" if point is None else _error(point.relative_error)

    return {
        "lost": lambda: share(exponents.shares(histogram()).lost),
        "between": lambda: share(
            share_between(histogram(), UNIMPORTANT, round(exponents.SMALLEST))
        ),
        "keeps": lambda: two_to_the(scale_that_keeps(histogram(), LITTLE)),
        "largest": lambda: two_to_the(largest_exponent(histogram())),
        "window": lambda: ends(fidelity_of(model).window),
        "settled": settled,
        "error_unscaled": unscaled_error,
        "best_error": lambda: share(_best(fidelity_of(model).precisions).relative_error or 0.0),
    }


def values() -> dict[str, Callable[[], str]]:
    """Each name's text."""
    found = {
        "published.table": published_table,
        "models.batch": lambda: str(fidelity_of("resnet20").batch_size),
        "little": lambda: share(LITTLE),
        "published.lost": lambda: f"{PUBLISHED_LOST:g} %",
        "published.unimportant": lambda: two_to_the(UNIMPORTANT),
        "published.sum": lambda: f"{PUBLISHED_ZERO + PUBLISHED_LOST + PUBLISHED_LEFT:.1f} %",
        "zeros.table": zeros_table,
        "errors.table": errors_table,
        "budget.table": budget_table,
    }
    for model in MODELS:
        found |= {f"{model}.{name}": value for name, value in _of_model(model).items()}
    return found
