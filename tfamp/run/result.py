"""result.json: how a run ended and what it measured. Each key is declared here, and only here."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

from tfamp.run import records, schema
from tfamp.run.fidelity import Window
from tfamp.run.json_types import Measured, Size
from tfamp.run.schema import beside, key

# Under which names a run saves.
FINAL_WEIGHTS = "final.weights.h5"
BEST_WEIGHTS = "best.weights.h5"
MODEL = "model.keras"

Status = Literal["completed", "interrupted", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """How long steps took, over windows between two marks, each weighed by its steps."""

    median: Measured = key("milliseconds a step")
    p95: Measured = key("milliseconds that 95 % of the steps stay below")
    n: int = key("steps timed; the first execution, which compiles, is none of them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoScale:
    """Where `--loss_scale=auto` had the loss scale start."""

    initial: float = key("the scale that was chosen")
    window: Window | None = key("the first batch's window of scales; null with `why`")
    why: str | None = key(
        "why there is no window, or why the scale is another than the one advised", absent=None
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossScale:
    """What became of a loss scale."""

    mode: Literal["dynamic", "static"] = key("whether it moves")
    initial: float = key("the scale of the first step")
    final: float = key("the scale after the last step")
    min: float = key("the smallest that was seen")
    max: float = key("the largest that was seen")
    skipped: int | None = key("steps whose update was skipped; null where nobody can tell")
    skipped_non_finite_loss: int | None = key(
        "those of them whose own loss was NaN or infinite", absent=None
    )
    collapsed_at: int | None = key(
        "the step at which the scale collapsed; null where it did not", absent=None
    )
    first_skips: tuple[int, ...] | None = key(
        "the steps of the first ten skips; null where they are not known", absent=None
    )
    auto: AutoScale | None = key(
        "what `--loss_scale=auto` chose before the first step", absent=None, left_out=True
    )
    stayed_in_window: bool | None = key(
        "whether the scale of every step was in that window", absent=None, left_out=True
    )

    def with_auto(self, auto: AutoScale) -> LossScale:
        """The same, with what was chosen and what came of it."""
        stayed = None if auto.window is None else auto.window.holds(self.min, self.max)
        return dataclasses.replace(self, auto=auto, stayed_in_window=stayed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonFinite:
    """What of a run was NaN or infinite, though nothing skipped it."""

    first_step: int | None = key("the first step at which something was", absent=None)
    what: Literal["loss", "gradient", "weight"] | None = key("what it was", absent=None)
    steps: int | None = key(
        "steps with such a loss or such a gradient that was applied", absent=None
    )
    weight: str | None = key("the path of one that was found to be", absent=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Underflow:
    """What the underflow meter found over a run."""

    of: str = key("`weights` or `activations`: what the gradients are of")
    measured: int = key("steps that were measured")
    mean_lost_fraction: float | None = key(
        "share of the gradient's entries that float16 lost, the mean of the steps in which a layer "
        "could be judged; null where none could"
    )
    max_lost_fraction: float | None = key("the largest of them")
    worst_layer: str | None = key("the layer that lost the largest share over all such steps")
    worst_layer_lost_fraction: float | None = key("its share")
    unjudged_layers: int = key("layers that could not be judged in some step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputesIn:
    """What of a model really computes in 16 bits; normalisation layers count as float32."""

    dtype: str = key("`float16`, `bfloat16`, both joined by `+`, or `float32` where no layer does")
    layers: int = key("layers with trainable weights that do")
    of_layers: int = key("all layers with trainable weights")
    parameters: int = key("parameters in such layers")
    of_parameters: int = key("all trainable parameters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """What a run saved, and the reason for what is not there."""

    weights: str | None = key("the file of the last weights", absent=None)
    are_averages: bool = key("whether they are the moving averages of `--ema_momentum`")
    why_no_weights: str | None = key("the reason where they are not there", absent=None)
    model: str | None = key("the file of the model", absent=None)
    why_no_model: str | None = key("the reason where it is not there", absent=None)
    best: str | None = key("the file of the best weights", absent=None)
    best_epoch: int | None = key("their epoch, from 0", absent=None)
    best_validation_accuracy: float | None = key("its validation accuracy", absent=None)
    why_no_best: str | None = key("the reason where they could not be written", absent=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerFigures:
    """What one of several optimizers did."""

    steps_attempted: int = key("updates that were tried")
    steps_applied: int | None = key("updates that reached the weights; null where nobody counts")
    loss_scale: LossScale | None = key("as `loss_scale` of a run with one optimizer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run measured; what it did not measure is None."""

    epochs: int = key("epochs that were trained to their end")
    steps_attempted: int = key("updates that were tried; with several optimizers the loop's steps")
    steps_applied: int | None = key(
        "updates that reached the weights; null where nobody counts, and with several optimizers"
    )
    validation_accuracy: float | None = key("of the last epoch that was validated, from 0 to 1")
    validation_loss: float | None = key("of the last epoch that was validated")
    train_loss: float | None = key("the mean of the last epoch, unscaled")
    epoch_time_sec: tuple[Measured, ...] = key(
        "seconds of each epoch's training; the first includes tracing and compiling"
    )
    first_call_sec: Measured | None = key("seconds of tracing, compiling and the first execution")
    step_time_ms: StepTime | None = key("how long the steps between marks took")
    examples_per_sec: Measured | None = key("examples a second at the median step time")
    device_peak_bytes: Size | None = key("the largest of the epochs' peaks; null if not counted")
    host_peak_rss_bytes: Size | None = key(
        "the process's largest since it began; null where it is not known"
    )
    loss_scale: LossScale | None = key(
        "what became of it; null where nothing is scaled, and with several optimizers"
    )
    non_finite: NonFinite | None = key("what was not; null where all was finite", absent=None)
    underflow: Underflow | None = key(
        "what float16 lost of gradients, where that was measured", absent=None, left_out=True
    )
    optimizers: dict[str, OptimizerFigures] | None = key(
        "what each of several optimizers did, by name", absent=None, left_out=True
    )
    metrics: dict[str, float] = key(
        "the last epoch's metrics by the rows' names; those of validation of the last epoch that "
        "was validated",
        absent={},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult(schema.JsonFile):
    """All of result.json, which is written when training has ended, and again as files are saved.

    Attributes:
        figures: What was measured; None of a run that failed before it was built. Their keys
            stand among the others.
    """

    file = "result.json"

    status: Status = key("how it ended")
    error: str | None = key("what made it fail, as `Type: message`; null where nothing did")
    policy: str = key("the precision policy")
    loop: str = key("`fit` or `custom`")
    model: str | None = key("the model's name; null where a script does not tell")
    dataset: str | None = key("the data set's name; null where a script does not tell")
    seed: int | None = key("that of weights, order and augmentation; null where a script sets none")
    tf32: bool = key("whether float32 products really ran in TF32")
    jit_compile: bool | None = key(
        "whether XLA compiles the step; what was asked for, where the run was not built yet"
    )
    computes_in: ComputesIn | None = key(
        "what really computes in 16 bits", absent=None, left_out=True
    )
    device: str = key("the training device, as `CPU:0 (its name)`")
    versions: dict[str, str] = key("versions of Python, tfamp and what it stands on, by package")
    saved: Saved | None = key(
        "what the run saved, where it is one of tfamp.train's", absent=None, left_out=True
    )
    figures: Figures | None = beside()


def status_of(value: Mapping[str, Any] | None) -> Status | None:
    """How the run of a result.json ended, whatever its other keys hold; None where it is not told.

    Args:
        value: The object in the file.
    """
    status = (value or {}).get("status")
    return status if status in typing.get_args(Status) else None


def is_of_a_run(value: Mapping[str, Any]) -> bool:
    """Whether a run wrote a result.json: it is marked, or has the schema of before the mark."""
    return schema.is_marked(value) or (
        value.get("schema_version") == records.SCHEMA_VERSION and status_of(value) is not None
    )
