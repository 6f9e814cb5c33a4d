"""What is said when loss scaling gives up."""

from __future__ import annotations


class LossScaleCollapse(RuntimeError):
    """Loss scaling cannot recover: the gradients stay non-finite whatever the scale.

    The weights are those of the last applied step.

    Args:
        step: The attempted step, from 1, at which scaling gave up.
        scale: The scale there.
        min_scale: The floor.
        skipped_in_a_row: Skips since the last applied step.
        skipped_total: Skips in all.
        variable: Path of the first variable whose gradient was not finite.
        has_nan: Whether that gradient held a NaN, not only infinities.
    """

    def __init__(
        self,
        *,
        step: int,
        scale: float,
        min_scale: float,
        skipped_in_a_row: int,
        skipped_total: int,
        variable: str,
        has_nan: bool,
    ) -> None:
        self.step = step
        self.variable = variable
        self.has_nan = has_nan
        kind = "NaN" if has_nan else "Inf"
        super().__init__(
            f"Loss scaling collapsed at step {step}: the gradient is still not finite at scale "
            f"{scale:g} (floor {min_scale:g}), after {skipped_in_a_row} skipped steps in a row "
            f"({skipped_total} in all). The first non-finite gradient is that of {variable!r}: it "
            f"holds {kind}. The weights are those of the last applied step. A smaller scale "
            "cannot help: look for a NaN in the data, lower the learning rate, clip the gradient, "
            "or compute that layer in float32."
        )
