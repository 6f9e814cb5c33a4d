"""tfamp: a mixed-precision training lab for TensorFlow and Keras 3.

The names below import TensorFlow when they are first used, not before, so that
`--helpshort` and the report need none. `keras.models.load_model` finds tfamp's classes in a
file from here on, whichever of the two is imported first.
"""

from __future__ import annotations

import importlib
from typing import Any

from tfamp import registration

__version__ = "0.1.0"

_HOMES = {
    "LossScaleCollapse": "tfamp.precision.collapse",
    "LossScaleOptimizer": "tfamp.precision.loss_scale",
    "PrecisionTelemetry": "tfamp.telemetry.callback",
    "gradient_fidelity": "tfamp.diagnosis.fidelity",
    "kept_moving_averages": "tfamp.precision.moving_averages",
}

__all__ = [
    "LossScaleCollapse",
    "LossScaleOptimizer",
    "PrecisionTelemetry",
    "__version__",
    "gradient_fidelity",
    "kept_moving_averages",
    "telemetry",
]


def __getattr__(name: str) -> Any:
    if name == "telemetry":
        return importlib.import_module("tfamp.telemetry")  # A room that can be called.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tfamp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


registration.register()
