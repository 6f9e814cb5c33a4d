"""One run: a workload trained with a scaling, and what became of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfamp
from experiments.loss_scaling.gradient_error import advised_scale, measure
from experiments.loss_scaling.scalings import AUTO, Scaling
from experiments.loss_scaling.workloads import Batch, Workload
from tfamp.precision import policy
from tfamp.training.step import Step

# Steps whose loss is told as one mean, and after which it is asked whether the run is lost.
BLOCK = 10
# Skipped steps that are told one by one.
MOST_SKIPS = 40

COMPLETED, COLLAPSE, NON_FINITE = "completed", "loss scale collapsed", "non-finite loss"

# Of the steps taken, the model, and the batch that comes next.
Look = Callable[[int, keras.Model, Batch], None]


def run(
    workload: Workload,
    scaling: Scaling,
    seed: int,
    look: Look | None = None,
) -> dict[str, Any]:
    """Trains, step for step on the same batches from the same weights for every scaling.

    A run ends early where it is lost: its loss is not finite, or its loss scale has collapsed
    (`tfamp.LossScaleOptimizer`, rule 5).

    Args:
        workload: What to train.
        scaling: In which precision, and with which loss scale.
        seed: Of the weights and the batches.
        look: Is called every `workload.look_every` steps and at the end, with the steps taken, the
            model and the batch that comes next. None: `gradient_error.measure` looks, where
            something computes in float16.

    Returns:
        What became of it, as JSON types.
    """
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    with policy.global_policy(scaling.policy):
        model = workload.build()
    batches = workload.batches(seed)
    batch = next(batches)
    workload.compile(model, workload.optimizer())
    initial_scale = advised_scale(model, batch) if scaling.kind == AUTO else None
    optimizer = scaling.optimizer(workload.optimizer(), workload.num_steps, initial_scale)
    if isinstance(optimizer, tfamp.LossScaleOptimizer):
        # A collapse is taken here, and stands in the results.
        optimizer.announces = False
    workload.compile(model, optimizer)
    optimizer.build(model.trainable_variables)
    step = tf.function(Step(model), jit_compile=workload.jit_compile, autograph=False)
    measured: list[dict[str, Any]] = []
    ended_by, message = COMPLETED, None
    for number in range(workload.num_steps):
        if number:
            batch = next(batches)
        if number % workload.look_every == 0:
            if look is not None:
                look(number, model, batch)
            elif scaling.policy != "float32":
                scale = float(optimizer.scale)
                found = measure(model, batch, scale)
                measured.append({"step": number, "log2_scale": math.log2(scale), **found})
        step(batch)
        if (number + 1) % BLOCK == 0:
            if collapse := scaling.is_scaled and optimizer.take_collapse():
                ended_by, message = COLLAPSE, str(collapse)
                break
            _, columns = optimizer.history(number)
            if not np.isfinite(columns["loss"]).all():
                ended_by = NON_FINITE
                break
    if look is not None:
        look(workload.num_steps, model, next(batches))
    _, history = optimizer.history()
    taken = len(history["loss"])
    return {
        "workload": workload.name,
        "scaling": scaling.name,
        "seed": seed,
        "steps": taken,
        "ended_by": ended_by,
        "message": message,
        "score": workload.score(model),
        "losses": [_mean(history["loss"][n : n + BLOCK]) for n in range(0, taken, BLOCK)],
        "first_loss": _mean(history["loss"][: workload.look_every]),
        "last_loss": _mean(history["loss"][-workload.look_every :]),
        "non_finite_from": _first(~np.isfinite(history["loss"])),
        **_skips(history),
        "scale": scale_over_time(history["scale"], history["skipped_total"]),
        "gradient": measured,
        "gradient_error": _mean_of(measured, "relative_error"),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _skips(history: dict[str, np.ndarray]) -> dict[str, Any]:
    total = history["skipped_total"]
    steps = 1 + np.flatnonzero(np.diff(total, prepend=0) > 0)
    return {"skips": int(total[-1]), "first_skips": [int(step) for step in steps[:MOST_SKIPS]]}


def scale_over_time(scales: np.ndarray, skipped_total: np.ndarray) -> dict[str, Any]:
    """How a scale moved.

    It is settled from the first step on from which it stays within a factor of two to the end, if
    it has never moved or has met an overflow: one that has only grown is still on its way up. One
    under which no step was applied any more has not settled.

    Args:
        scales: float [steps]: what each step's loss was multiplied by.
        skipped_total: float [steps]: skips up to and with each step.

    Returns:
        Its logarithms (`log2_initial`, `log2_final`, `log2_min`, `log2_max`), how often it `grew`
        and `fell`, `settled_after`: steps before it was settled, null where it was not, and
        `changes`: [step, log2] of the first step, from 1, with each scale.
    """
    logs = np.log2(scales.astype(float))
    moves = np.diff(logs)
    places = [0, *(1 + np.flatnonzero(moves))]
    # The spread of all that comes from a step on, which only falls.
    highest = np.maximum.accumulate(logs[::-1])[::-1]
    lowest = np.minimum.accumulate(logs[::-1])[::-1]
    start = int(np.argmax(highest - lowest <= 1))
    grew, fell = int((moves > 0).sum()), int((moves < 0).sum())
    before = skipped_total[start - 1] if start else 0
    applies = skipped_total[-1] - before < len(logs) - start
    is_settled = applies and (fell > 0 or grew == 0)
    return {
        "log2_initial": float(logs[0]),
        "log2_final": float(logs[-1]),
        "log2_min": float(logs.min()),
        "log2_max": float(logs.max()),
        "grew": grew,
        "fell": fell,
        "settled_after": start if is_settled else None,
        "changes": [[int(place) + 1, float(logs[place])] for place in places],
    }


def _mean_of(measured: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The mean of an error over training; None where it is nowhere finite."""
    errors = [point[key] for point in measured]
    finite = [error for error in errors if error is not None]
    return float(np.mean(finite)) if finite else None


def _mean(values: np.ndarray) -> float | None:
    mean = float(np.mean(values.astype(float)))
    return mean if math.isfinite(mean) else None


def _first(flags: np.ndarray) -> int | None:
    return int(np.argmax(flags)) + 1 if flags.any() else None
