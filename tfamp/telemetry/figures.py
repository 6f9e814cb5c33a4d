"""A run's figures so far: what adds up over its steps, can be saved, and makes result.json.

Who writes them: `recorder`, and what it reads with. Each row of a step is written once and not
kept; what is here is small and of plain Python, so that `state` is all that a resumed run needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfamp.run import records
from tfamp.run.result import Figures, OptimizerFigures
from tfamp.telemetry import clock, memory
from tfamp.telemetry.clock import Window
from tfamp.telemetry.non_finite import NonFiniteFound
from tfamp.telemetry.totals import OptimizerTotals
from tfamp.telemetry.underflow_totals import UnderflowTotals


@dataclasses.dataclass
class EpochFigures:
    """The epoch that trains, or the last one that did.

    Attributes:
        number: The epoch, from 0 over the whole run.
        start: Steps that the run had taken before it.
        is_open: Whether it trains.
        seconds: How long it had trained when it was saved.
        device_peak: The device's peak by then, in bytes.
        means: The model's metrics at the last mark, each the mean since the epoch began.
    """

    number: int = 0
    start: int = 0
    is_open: bool = False
    seconds: float = 0.0
    device_peak: int = 0
    means: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class RunFigures:
    """What a run's figures are so far.

    Attributes:
        step: Steps that were given to the device: the run's one counter of them.
        marked: The step of the last mark.
        epoch: The epoch that trains, or the last one that did.
        next_epoch: The number of the next one to begin.
        epoch_seconds: The training time of each epoch that has ended.
        first_call_seconds: The first call: tracing, compiling and running; None before its end.
        windows: The step clock's.
        device_peak: The device's peak over all epochs, in bytes; 0 where it counts none.
        host_peak: The largest resident set of the processes that trained, in bytes.
        metrics: The last epoch's metrics, those of validation of the last one that was validated.
        optimizers: What each optimizer did, by its name; as of the last phase's end.
        non_finite: What was not finite.
        underflow: What float16 lost of gradients.
    """

    step: int = 0
    marked: int = 0
    epoch: EpochFigures = dataclasses.field(default_factory=EpochFigures)
    next_epoch: int = 0
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)
    first_call_seconds: float | None = None
    windows: list[Window] = dataclasses.field(default_factory=list)
    device_peak: int = 0
    host_peak: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    optimizers: dict[str, OptimizerTotals] = dataclasses.field(default_factory=dict)
    non_finite: NonFiniteFound = dataclasses.field(default_factory=NonFiniteFound)
    underflow: UnderflowTotals = dataclasses.field(default_factory=UnderflowTotals)

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return records.to_json_number(dataclasses.asdict(self))

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> RunFigures:
        """The figures that `state` was asked for."""
        values = records.from_json_number(dict(state))
        optimizers = values["optimizers"].items()
        values |= {
            "epoch": EpochFigures(**values["epoch"]),
            "windows": [Window(**window) for window in values["windows"]],
            "optimizers": {name: OptimizerTotals(**totals) for name, totals in optimizers},
            "non_finite": NonFiniteFound(**values["non_finite"]),
            "underflow": UnderflowTotals(**values["underflow"]),
        }
        return cls(**values)

    def end_epoch(self, epoch: EpochFigures, host_peak: int) -> None:
        """Adds what an epoch's training took.

        Args:
            epoch: The epoch, as it was when its training ended.
            host_peak: The process's largest resident set, in bytes.
        """
        self.epoch = dataclasses.replace(epoch, is_open=False)
        self.epoch_seconds.append(epoch.seconds)
        self.device_peak = max(self.device_peak, epoch.device_peak)
        self.host_peak = max(self.host_peak, host_peak)

    def result(self, batch_size: int | None) -> Figures:
        """The figures as in result.json.

        Args:
            batch_size: Examples a step, or None where that is not known.
        """
        optimizers = dict(self.optimizers)
        single = optimizers.pop("", OptimizerTotals(attempted=self.step, applied=None))
        several = {
            name: OptimizerFigures(
                steps_attempted=totals.attempted,
                steps_applied=totals.applied,
                loss_scale=totals.loss_scale(),
            )
            for name, totals in optimizers.items()
            if totals.attempted
        }
        step_time = clock.summary(self.windows)
        return Figures(
            epochs=len(self.epoch_seconds),
            steps_attempted=single.attempted,
            steps_applied=single.applied,
            validation_accuracy=self.metrics.get(records.VALIDATION_ACCURACY),
            validation_loss=self.metrics.get(records.VALIDATION_LOSS),
            train_loss=self.metrics.get(records.TRAIN_LOSS),
            epoch_time_sec=tuple(self.epoch_seconds),
            first_call_sec=self.first_call_seconds,
            step_time_ms=step_time,
            examples_per_sec=(
                1e3 * batch_size / step_time.median if batch_size and step_time else None
            ),
            device_peak_bytes=self.device_peak or None,
            host_peak_rss_bytes=max(self.host_peak, memory.host_peak_rss_bytes()),
            loss_scale=single.loss_scale(),
            non_finite=self.non_finite.result(),
            underflow=self.underflow.result(),
            optimizers=several if optimizers else None,
            metrics=self.metrics,
        )
