"""A sweep that nothing was run for: each layer has the errors that a test gives it."""

from __future__ import annotations

import math
from types import SimpleNamespace

from tfamp.diagnosis.sweep import HALF, SINGLE
from tfamp.diagnosis.tally import Tally


def tally(error):
    """Of a gradient of norm 1 with that error; None where an entry is infinite."""
    squares = math.inf if error is None else error**2
    return Tally(squares, 1.0, 1.0, 1.0, 10, 0, 3 if error is None else 0, 0)


def planted(first=0, **layers):
    """Errors by layer: of its weights, or (of its weights or None, of its activations)."""
    both = {
        path: errors if isinstance(errors, tuple) else (errors, [0.01] * len(errors))
        for path, errors in layers.items()
    }
    weights, activations = {SINGLE: {}}, {SINGLE: {}}
    for path, sides in both.items():
        for found, errors in zip((weights, activations), sides, strict=True):
            if errors is None:
                continue
            found[SINGLE][path] = tally(1e-7)
            for place, error in enumerate(errors):
                found.setdefault((HALF, first + place), {})[path] = tally(error)
    for found, other in ((weights, activations), (activations, weights)):
        for setting in other:
            found.setdefault(setting, {})
    return SimpleNamespace(weights=weights, activations=activations)
