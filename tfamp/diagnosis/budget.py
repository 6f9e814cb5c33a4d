"""Where the error of a float16 gradient comes from, and which layers bring it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfamp.diagnosis import sums
from tfamp.diagnosis.comparing import read_distance, read_weights
from tfamp.diagnosis.probe import Precision, Probe
from tfamp.diagnosis.sweep import reference_precision
from tfamp.run.fidelity import ErrorBudget, RankedLayer

# What ranking may cost, in entries of layers' outputs that are made: a pass per layer, in each of
# which a layer costs so many entries whatever their number. About 20 s on two CPU cores.
RANKING_COST = 7e8
COST_OF_A_CALL = 100_000
# Fewer say little of a batch, and BatchNormalization has no variance of one.
FEWEST_EXAMPLES = 2

# What an eager pass leaves to Python's garbage collector holds activations.
_PASSES_PER_COLLECTION = 8


class Parts(NamedTuple):
    """Squared L2 norms over all batches: of the reference, and of the parts of the error."""

    reference: float
    forward: float
    backward: float
    underflow: float


def budget(
    parts: Parts, best: int, num_examples: int, layers: Sequence[RankedLayer]
) -> ErrorBudget:
    """The budget as fidelity.json has it.

    Args:
        parts: What was measured.
        best: log2 of the best scale.
        num_examples: Examples that layers were ranked on.
        layers: The ranking.
    """

    def share(squares: float) -> float | None:
        if not math.isfinite(squares) or not parts.reference:
            return None
        return math.sqrt(squares / parts.reference)

    return ErrorBudget(
        forward=share(parts.forward),
        backward=share(parts.backward),
        underflow_at_scale_1=share(parts.underflow),
        best_log2_scale=best,
        num_examples=num_examples,
        layers=tuple(layers),
    )


def ranked(
    probe: Probe,
    batch: Any,
    mixed: Callable[[Sequence[str]], Precision],
    paths: Sequence[str],
    best: int,
    say: Callable[[str], None],
) -> list[RankedLayer]:
    """How much of the whole gradient's error goes with each layer alone in float32, most first.

    Args:
        probe: Takes the passes.
        batch: On which; see `first_examples`.
        mixed: Makes the 16-bit precision with some layers in float32.
        paths: The layers that compute in 16 bits.
        best: log2 of the scale.
        say: Is told what goes on.
    """
    reference = probe.run_on_device(
        batch, reference_precision(probe), read=read_weights, eager=True
    )
    norm = math.sqrt(sum(sums.squares(gradient) for gradient in reference.values()))

    def error(float32: Sequence[str]) -> float | None:
        squares = probe.run(
            batch,
            mixed(float32),
            scale=2.0**best,
            read=read_distance,
            given=(reference, np.float64(2.0**-best)),
            eager=True,
        )
        return math.sqrt(squares) / norm if norm and math.isfinite(squares) else None

    before = error(())
    found = []
    for number, path in enumerate(paths):
        say(f"layer {number + 1} of {len(paths)} alone in float32")
        after = error((path,))
        if number % _PASSES_PER_COLLECTION == 0:
            gc.collect()
        removed = None if None in (before, after) or not before else 1 - after / before  # type: ignore[operator]
        found.append(RankedLayer(path=path, relative_error=after, removed=removed))
    return sorted(found, key=lambda each: -math.inf if each.removed is None else -each.removed)


def num_ranked_examples(batch_size: int, num_ranked: int, num_calls: int, entries: float) -> int:
    """How many examples of a batch layers are ranked on: all where that is cheap.

    By the model's size and not by the clock, so that the same model is always ranked on the same.

    Args:
        batch_size: Examples of the batch.
        num_ranked: Layers to rank, each in a pass of its own.
        num_calls: Layers that a pass calls.
        entries: Entries of all outputs of a pass over the batch.
    """
    a_pass = RANKING_COST / max(1, num_ranked)
    left = a_pass - num_calls * COST_OF_A_CALL
    affordable = int(left / max(1.0, entries / batch_size))
    return max(min(FEWEST_EXAMPLES, batch_size), min(batch_size, affordable))


def first_examples(batch: Sequence[Any], number: int) -> tuple[Any, ...]:
    """The first examples of a batch, of each of its parts."""
    return tuple(
        None if part is None else keras.tree.map_structure(lambda leaf: leaf[:number], part)
        for part in batch
    )
