"""What Keras reports of a model, under the rows' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfamp.run import records
from tfamp.telemetry.figures import RunFigures

# What Keras calls the accuracy of a model with one output.
_ACCURACIES = (
    "accuracy",
    "acc",
    "binary_accuracy",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
)
# Callbacks put them among the metrics.
_NO_METRICS = ("lr", "learning_rate")


def epoch_figures(logs: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an epoch, training and validation, under the rows' names."""
    return {name: value for name, _, value in _named(logs)}


class KerasMetrics:
    """The metrics of a model between two marks: what `fit` knows of its steps.

    Keras reports means since the epoch began: two of them give the mean in between. What is no
    such mean (AUC, a root, what a `train_step` of the user's returns as it is) stays as it is
    reported.

    Args:
        model: The model that reports.
        figures: The run's, which keep the means of the last mark.
    """

    def __init__(self, model: keras.Model, figures: RunFigures) -> None:
        self._has_own_step = type(model).train_step is not keras.Model.train_step
        self._model = model
        self._figures = figures
        self._logs: Mapping[str, Any] = {}

    def note(self, logs: Mapping[str, Any] | None) -> None:
        """Takes what Keras reports after a step, and leaves it on the device."""
        self._logs = logs or {}

    def wait(self) -> None:
        """Waits for the device to have done all steps so far."""
        for value in self._logs.values():
            np.asarray(value)

    def take(self, has_losses: bool) -> dict[int, dict[str, float]]:
        """The figures of the steps since the last mark, under the last of them.

        Args:
            has_losses: Whether the rows have each step's own loss already.
        """
        epoch, step = self._figures.epoch, self._figures.step
        before, steps = self._figures.marked - epoch.start, step - epoch.start
        figures: dict[str, float] = {}
        means: dict[str, float] = {}
        for name, reported, value in _named(self._logs):
            figures[name] = value
            if self._is_mean(reported, value):
                means[name] = value
                figures[name] = (value * steps - epoch.means.get(name, 0.0) * before) / (
                    steps - before
                )
        epoch.means = means
        if has_losses:
            figures.pop(records.TRAIN_LOSS, None)
        return {step: figures}

    def _is_mean(self, name: str, value: float) -> bool:
        metrics = [m for m in _flat(self._model.metrics) if _reports_as(m, name)]
        if self._has_own_step:
            # It may return the mean that a metric of the model keeps, or the step's own figure.
            kept = [float(m.result()) for m in metrics if m.name == name and _is_mean(m)]
            return any(np.isclose(mean, value, rtol=1e-5, equal_nan=True) for mean in kept)
        if metrics:
            return all(_is_mean(metric) for metric in metrics)
        return name in ("loss", *_ACCURACIES)


def _named(logs: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """(row's name, Keras's name, value) of every metric that is one number."""
    numbers = {name: _number(value) for name, value in logs.items() if name not in _NO_METRICS}
    trained = [name for name in numbers if not name.startswith("val_")]
    accuracies = [name for name in trained if name in _ACCURACIES]
    # Two of them are two things, each under its own name.
    accuracy = accuracies[0] if len(accuracies) == 1 else "accuracy"
    named = []
    for name, value in numbers.items():
        room, own = ("validation", name[4:]) if name.startswith("val_") else ("train", name)
        if value is not None:
            own_name = "accuracy" if own == accuracy else own
            named.append((records.reported(room, own_name), name, value))
    return named


def _number(value: Any) -> float | None:
    array = np.asarray(value)
    try:
        return float(array.reshape(())) if array.size == 1 else None
    except (TypeError, ValueError):
        return None


def _flat(metrics: list[keras.metrics.Metric]) -> list[keras.metrics.Metric]:
    # Those of `compile` are in a metric of metrics.
    return [m for metric in metrics for m in (getattr(metric, "metrics", None) or [metric])]


def _reports_as(metric: keras.metrics.Metric, name: str) -> bool:
    # Keras puts the output's name in front where there are several.
    return name == metric.name or name.endswith(f"_{metric.name}")


def _is_mean(metric: keras.metrics.Metric) -> bool:
    return type(metric).result is keras.metrics.Mean.result
