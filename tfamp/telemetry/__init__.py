"""What a training loop did, step by step: figures, rows, TensorBoard.

The room of that name, and at once what a loop of one's own calls: `tfamp.telemetry(...)` is
`tfamp.telemetry.hand_written.telemetry(...)`.
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
