"""What is said when loss scaling gives up, and when it skips what no scale can help."""

from __future__ import annotations


class LossScaleCollapse(RuntimeError):
    """Loss scaling has failed for too long: no scale, or no patience, is left.

    A skipped step leaves the weights as they were. Steps after the collapse whose gradients were
    finite have been applied.

    Args:
        step: The attempted step, from 1, at which it gave up.
        read_at: Steps attempted when that was read.
        scale: The scale at `step`.
        min_scale: The floor; None where the scale is static.
        skipped_in_a_row: Skips in a row up to `step`.
        skipped_total: Skips in all, when it was read.
        skipped_non_finite_loss: Those whose own loss was not finite.
        skipped_since: Skips between `step` and `read_at`.
        scale_now: The scale when it was read.
        variable: Path of the first variable whose gradient was not finite.
        has_nan: Whether that gradient held a NaN, not only infinities.
        is_loss_finite: Whether the loss of `step` was finite.
    """

    def __init__(
        self,
        *,
        step: int,
        read_at: int,
        scale: float,
        min_scale: float | None,
        skipped_in_a_row: int,
        skipped_total: int,
        skipped_non_finite_loss: int,
        skipped_since: int,
        scale_now: float,
        variable: str,
        has_nan: bool,
        is_loss_finite: bool,
    ) -> None:
        self.step = step
        self.read_at = read_at
        self.variable = variable
        self.has_nan = has_nan
        self.is_loss_finite = is_loss_finite
        floor = "static" if min_scale is None else f"floor {min_scale:g}"
        later = read_at - step
        where = f"at step {step}" + (
            f" (read {_steps(later)} later, at {read_at})" if later else ""
        )
        what = (
            f"the gradient is not finite at scale {scale:g} ({floor}), after "
            f"{_steps(skipped_in_a_row, 'skipped ')} in a row ({skipped_total} skipped in all, "
            f"{skipped_non_finite_loss} of them with a loss that was NaN or infinite itself)"
        )
        advice = (
            "A smaller scale cannot help: lower the learning rate, clip the gradient, or compute "
            "that layer in float32."
            if is_loss_finite
            else "The loss itself was not finite, which is no matter of the scale: look for NaN "
            "and infinity in the data, lower the learning rate, or compute in float32 the layer "
            "that overflows on the way forward."
        )
        since = ""
        if later > skipped_since:
            since = (
                f" Since then {later - skipped_since} of {_steps(later)} were applied, and the "
                f"scale is {scale_now:g} now."
            )
        super().__init__(
            f"Loss scaling collapsed {where}: {what}. The first non-finite gradient is that of "
            f"{variable!r}: it holds {'NaN' if has_nan else 'Inf'}. A skipped step leaves the "
            f"weights as they were. {advice}{since}"
        )


def skipped_non_finite_loss(skipped: int, attempted: int) -> str:
    """What a script is told once of skips whose loss was not finite.

    Args:
        skipped: How many there are so far.
        attempted: Steps attempted so far.
    """
    return (
        f"{skipped} of {attempted} steps so far were skipped because their loss was NaN or "
        "infinite before it was scaled. The weights and the loss scale are untouched; look for NaN "
        "and infinity in the data, or for a layer that overflows on the way forward."
    )


def broken_averages(layers: tuple[str, ...]) -> str:
    """What a script is told once of moving averages that are NaN or infinite since such a skip.

    Args:
        layers: Paths of the layers.
    """
    return (
        f"The moving averages of {', '.join(layers)} took in a batch whose step was skipped, and "
        "are no longer finite: evaluation and prediction will give NaN. Train again with `with "
        "tfamp.kept_moving_averages(model):` around fit, which puts them back at a skip."
    )


def _steps(count: int, kind: str = "") -> str:
    return f"{count} {kind}step" + ("" if count == 1 else "s")
