"""What a training loop did, step by step: figures, rows, TensorBoard.

    progress, stop_on_non_finite   callbacks that ask the one below: what the user sees; an end
    callback, hand_written         the two doors: Keras's hooks, and a loop of one's own
    metered_fit                    has Keras's training step measured, and put back
    script_run, script_config      for a user's script: the folder, config.json, result.json
    recorder                       counts steps and epochs, reads the device, writes rows
    keras_metrics, loop_metrics    what `fit`, or a loop, reports of its steps
    figures                        all that adds up: saved, restored, and result.json's source
    non_finite                     what was NaN or infinite, and what a run does about it
    keras_readers, optimizer_readers, totals, named_optimizers     what each optimizer did
    underflow_totals               what float16 lost, over the run
    clock, memory                  what it cost
    row_files, tensorboard         where rows go
    summaries                      what TensorBoard shows beside numbers

Each imports from what stands beside or below it. The room is at once what a loop of one's own
calls: `tfamp.telemetry(...)` is `tfamp.telemetry.hand_written.telemetry(...)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfamp.telemetry.hand_written import LoopTelemetry


class _Room(ModuleType):
    """A package that can be called: a room and a public function have one name."""

    def __call__(self, *args: Any, **kwargs: Any) -> LoopTelemetry:
        # Not before: it imports TensorFlow.
        from tfamp.telemetry.hand_written import telemetry

        return telemetry(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
