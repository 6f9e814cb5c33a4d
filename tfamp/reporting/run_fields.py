"""What a report takes out of config.json and result.json, and how each must look."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

# What a report takes out of result.json: its test, and what the test asks for.
Check = tuple[Callable[[Any], bool], str]


def is_number(value: Any) -> bool:
    """A number, NaN and infinities among them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """A whole number of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_measured(value: Any) -> bool:
    """A time, a rate or a size."""
    return is_number(value) and math.isfinite(value) and value > 0


def _or_absent(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _is_step_time(value: Any) -> bool:
    return isinstance(value, dict) and all(is_measured(value.get(n)) for n in ("median", "p95"))


def is_content(value: Any) -> bool:
    """Hashes by file name."""
    return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())


def _is_scale(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("mode"), str)
        and all(is_number(value.get(name)) for name in ("initial", "final", "min", "max"))
        # Keras's own scaler does not always tell.
        and _or_absent(is_count)(value.get("skipped"))
    )


RESULT_FIELDS: dict[str, Check] = {
    "policy": (lambda value: isinstance(value, str), "a name"),
    "tf32": (lambda value: isinstance(value, bool), "true or false"),
    "device": (lambda value: isinstance(value, str), "a text"),
    "versions": (lambda value: isinstance(value, dict), "an object"),
    "steps_attempted": (is_count, "a count"),
    "validation_accuracy": (_or_absent(is_number), "a number"),
    "validation_loss": (_or_absent(is_number), "a number"),
    "train_loss": (_or_absent(is_number), "a number"),
    "epoch_time_sec": (
        lambda value: isinstance(value, list) and all(map(is_measured, value)),
        "a list of seconds",
    ),
    "first_call_sec": (_or_absent(is_measured), "a number above 0"),
    "step_time_ms": (_or_absent(_is_step_time), "median and p95 in milliseconds"),
    "examples_per_sec": (_or_absent(is_measured), "a number above 0"),
    "device_peak_bytes": (_or_absent(is_measured), "a number above 0"),
    "host_peak_rss_bytes": (_or_absent(is_measured), "a number above 0"),
    "loss_scale": (_or_absent(_is_scale), "mode, initial, final, min, max and skipped"),
}
CONFIG_FIELDS: dict[str, Check] = {
    "policy": RESULT_FIELDS["policy"],
    # A script of the user's need not tell its model, data, seed and sizes.
    "model": (_or_absent(lambda value: isinstance(value, str)), "a name"),
    "dataset": (_or_absent(lambda value: isinstance(value, str)), "a name"),
    "loop": (lambda value: isinstance(value, str), "a name"),
    "seed": (_or_absent(is_count), "a whole number"),
    "epochs": (_or_absent(is_count), "a whole number"),
    "batch_size": (_or_absent(is_count), "a whole number"),
    "loss_scale": (lambda value: isinstance(value, str), "a text"),
    "float32_layers": (
        lambda value: isinstance(value, list) and all(isinstance(part, str) for part in value),
        "a list of texts",
    ),
}
