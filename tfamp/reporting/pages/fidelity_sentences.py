"""What a fidelity says, in sentences for its page and for TensorBoard."""

from __future__ import annotations

from tfamp.reporting import fidelity_points
from tfamp.reporting.figures.style import power_of_two
from tfamp.reporting.pages import formatting
from tfamp.run.fidelity import ErrorBudget, Fidelity, Window

NOT_FINITE = "not finite"
_NOT_ASKED = f"{fidelity_points.SCALED} was not asked for"


# Percents below this are told as a power of ten.
_TINY = 1e-6


def share(value: float | None) -> str:
    """A share of 1 as percent; None is one of what is not finite."""
    if value is None:
        return NOT_FINITE
    percent = 100 * value
    form = formatting.rounded if percent == 0 or abs(percent) >= _TINY else formatting.percent
    return f"{formatting.text(value if form is formatting.percent else percent, form)} %"


def power(log2_scale: float) -> str:
    """A scale by its exponent: `2¹⁵`."""
    return power_of_two(2.0**log2_scale)


def window_ends(window: Window) -> str:
    """`2⁴ to 2¹⁵`; of an open one that it may reach further."""
    ends = power(window.log2_min)
    if window.log2_max != window.log2_min:
        ends += f" to {power(window.log2_max)}"
    return f"{ends} or more" if window.is_open else ends


def verdict(fidelity: Fidelity) -> list[str]:
    """All of the sentences, the advice first."""
    found = [
        advice(fidelity),
        window(fidelity),
        settled(fidelity),
        errors(fidelity),
        underflow(fidelity),
        budget(fidelity),
    ]
    return [sentence for sentence in found if sentence]


def advice(fidelity: Fidelity) -> str:
    """What to set."""
    found = fidelity.advice
    if found is None:
        return f"There is no advice on a loss scale: {_NOT_ASKED}."
    return found.summary or "There is nothing to set."


def window(fidelity: Fidelity) -> str:
    """Which loss scales serve every layer."""
    found = fidelity.window
    if found is None:
        if not fidelity_points.is_asked(fidelity):
            return f"No loss scale was tried: {_NOT_ASKED}."
        return f"No loss scale serves every layer: {fidelity.why or 'why was not recorded'}."
    if found.log2_min == found.log2_max and not found.is_open:
        return f"One loss scale serves every layer: {window_ends(found)}."
    told = (
        f"Loss scales from {power(found.log2_min)} to {power(found.log2_max)} serve every layer: "
        "no layer's gradient gets much better than it is at any of them."
    )
    if found.is_open:
        told += f" {power(found.log2_max)} is only the largest that was tried; larger ones may do."
    return told


def settled(fidelity: Fidelity) -> str:
    """Where the run's scale ended, and whether the window holds it."""
    where, found = fidelity.settled_log2_scale, fidelity.window
    if where is None:
        return ""
    told = f"The run's loss scale ended at {power(where)}"
    if found is None:
        return f"{told}."
    if found.holds(2.0**where):
        return f"{told}, inside the window."
    return f"{told}, {'below' if found.is_below(2.0**where) else 'above'} the window."


def errors(fidelity: Fidelity) -> str:
    """How far each precision's gradient is from the reference."""
    parts = [
        f"{point.precision} {share(point.relative_error)}"
        for point in fidelity_points.unscaled(fidelity.precisions)
    ]
    best = fidelity_points.best(fidelity.precisions)
    if best is not None and best.log2_scale is not None:
        where = f"at its best scale, {power(best.log2_scale)}"
        parts.append(f"{best.precision} {share(best.relative_error)} {where}")
    elif fidelity_points.is_asked(fidelity):
        parts.append(f"{fidelity_points.SCALED} {NOT_FINITE} at any scale that was tried")
    if not parts:
        return ""
    return f"Error of the weights' gradient against {fidelity.reference}'s: {', '.join(parts)}."


def underflow(fidelity: Fidelity) -> str:
    """What is lost without a loss scale."""
    parts = [
        f"{share(point.underflow_fraction)} of the {of} become zero"
        for points, of in (
            (fidelity.precisions, "entries of the weights' gradients"),
            (fidelity.activation_precisions, "entries of the activation gradients"),
        )
        if (point := fidelity_points.at(points, 0.0)) is not None
    ]
    return f"Without a loss scale, {' and '.join(parts)} in float16." if parts else ""


def budget(fidelity: Fidelity) -> str:
    """Where the error comes from, and which layer removes most of it."""
    found = fidelity.error_budget
    if found is None:
        return f"There is no error budget: {_NOT_ASKED}."
    known = (found.forward, found.backward, found.underflow_at_scale_1)
    if all(part is None for part in known):
        return (
            f"There is no error budget: {fidelity_points.SCALED}'s gradient is {NOT_FINITE} at any "
            "scale that was tried."
        )
    best = "" if found.best_log2_scale is None else f", {power(found.best_log2_scale)}"
    told = (
        f"Where {fidelity_points.SCALED}'s error comes from: rounding on the way forward makes "
        f"{_part(found.forward)}, which no scale cures; the way back at the best scale{best}, "
        f"{_part(found.backward)}; scale 1 adds {_part(found.underflow_at_scale_1)}."
    )
    return told + _first(found)


def _part(value: float | None) -> str:
    return "an unknown part (a gradient is not finite)" if value is None else share(value)


def _first(found: ErrorBudget) -> str:
    if not found.layers or not (found.layers[0].removed or 0.0) > 0.0:
        return ""
    first = found.layers[0]
    return (
        f" Of all layers, {first.path} alone in float32 removes most: {share(first.removed)} of it."
    )
