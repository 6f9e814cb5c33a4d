r"""Three loss scalers on the same gradients: tfamp's, Keras's and PyTorch's, a weight each.

    scripts/python.sh -m experiments.loss_scaling scalers \
        --out=experiments/results/loss_scaling/scalers.json

Three streams of steps, of which each scaler decides what its scale becomes:

- settles: a step overflows where the scale is above 2^13, for 6,000 steps.
- never_finite: 300 steps overflow whatever the scale is; then comes one good step.
- never_overflows: 300 good steps, each of which lets the scale grow (growth interval 1).

`--scalers=torch` needs PyTorch, perhaps in an environment of its own: with --out, its results are
added to the file.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tfamp
from tfamp.run.command import DONE, Command, Given, Option
from tfamp.run.errors import InputError, setting, unknown_name
from tfamp.run.kinds import Kind, Patterns

SCALERS = ("tfamp", "keras", "torch")
GRADIENT = 0.5


class Stream(NamedTuple):
    """Steps that are the same for every scaler.

    Attributes:
        steps: How many.
        overflows: Whether a step's gradient is infinite, by its number from 0 and the scale.
        growth_steps: Clean steps before a scale grows; None for each scaler's own.
    """

    steps: int
    overflows: Callable[[int, float], bool]
    growth_steps: int | None = None


STREAMS = {
    "settles": Stream(6000, lambda step, scale: scale > 2.0**13),
    "never_finite": Stream(301, lambda step, scale: step < 300),
    "never_overflows": Stream(300, lambda step, scale: False, growth_steps=1),
}


def through_keras(wrap: Any, stream: Stream) -> dict[str, Any]:
    """A stream through an optimizer that wraps SGD."""
    import keras
    import tensorflow as tf

    growth = {} if stream.growth_steps is None else {"dynamic_growth_steps": stream.growth_steps}
    optimizer = wrap(keras.optimizers.SGD(1e-3), **growth)
    weight = keras.Variable([1.0])
    optimizer.build([weight])

    @tf.function
    def step(gradient: tf.Tensor) -> None:
        optimizer.scale_loss(1.0)
        optimizer.apply([tf.reshape(gradient * optimizer.dynamic_scale, [1])], [weight])

    scales = [float(optimizer.dynamic_scale)]
    for number in range(stream.steps):
        overflows = stream.overflows(number, scales[-1])
        step(tf.constant(math.inf if overflows else GRADIENT))
        scales.append(float(optimizer.dynamic_scale))
    kept = found(scales, stream.steps - int(optimizer.iterations), float(weight.value[0]))
    return kept | {"collapsed_at": collapsed_at(optimizer)}


def collapsed_at(optimizer: Any) -> int | None:
    """The step at which tfamp's trainer and callback would have stopped; Keras never does."""
    try:
        getattr(optimizer, "raise_if_collapsed", lambda: None)()
    except tfamp.LossScaleCollapse as collapse:
        return collapse.step
    return None


def through_torch(stream: Stream) -> dict[str, Any]:
    """A stream through PyTorch's GradScaler."""
    import torch

    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    growth = {} if stream.growth_steps is None else {"growth_interval": stream.growth_steps}
    scaler = torch.amp.GradScaler("cpu", **growth)
    scales, applied = [scaler.get_scale()], []
    # `scaler.step` calls the optimizer where no gradient is infinite.
    optimizer.register_step_pre_hook(lambda *_: applied.append(1))
    for number in range(stream.steps):
        overflows = stream.overflows(number, scales[-1])
        gradient = math.inf if overflows else GRADIENT
        optimizer.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return found(scales, stream.steps - len(applied), float(weight.detach()[0])) | {
        "collapsed_at": None
    }


def found(scales: Sequence[float], skipped: int, weight: float) -> dict[str, Any]:
    """What is kept of a stream: where the scale was and what became of the weight."""
    moves = [i for i in range(1, len(scales)) if scales[i] != scales[i - 1]]
    return {
        "first_scale": scales[0],
        "last_scale": shown(scales[-1]),
        "moves": len(moves),
        "last_move": moves[-1] if moves else 0,
        "lowest_scale": shown(min(scales)),
        "highest_scale": shown(max(scales)),
        "skipped": skipped,
        "weight": shown(weight),
    }


def shown(value: float) -> float | str:
    """A number for a JSON file, which has no infinity."""
    return value if math.isfinite(value) else str(value)


def run(scaler: str, stream: Stream) -> dict[str, Any]:
    """A stream through one of the scalers, with its defaults."""
    if scaler == "torch":
        return through_torch(stream)
    import keras

    wraps = {"tfamp": tfamp.LossScaleOptimizer, "keras": keras.optimizers.LossScaleOptimizer}
    return through_keras(wraps[scaler], stream)


def _body(given: Given) -> int:
    out = given["out"] and Path(given["out"])
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"{setting('out', str(out))}: give a JSON file in a folder that is there.")
    for scaler in given["scalers"]:
        if scaler not in SCALERS:
            raise unknown_name("scaler", scaler, SCALERS, "scalers")
    if "torch" in given["scalers"]:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise InputError(
                f"{setting('scalers', 'torch')} needs PyTorch here: pip install torch"
            ) from None
    results: dict[str, Any] = {"results": {}, "versions": {}}
    if out and out.exists():
        results = json.loads(out.read_text())
    for name, stream in STREAMS.items():
        print(f"{name}: {stream.steps:,} steps")
        for scaler in given["scalers"]:
            one = run(scaler, stream)
            print(
                f"  {scaler:6} scale {one['first_scale']:g} -> {one['last_scale']}, "
                f"{one['skipped']} skipped, weight {one['weight']}",
                flush=True,
            )
            results["results"].setdefault(name, {"steps": stream.steps})[scaler] = one
    names = ("tensorflow", "keras", "torch", "numpy")
    results["versions"] |= {n: sys.modules[n].__version__ for n in names if n in sys.modules}
    if out:
        out.write_text(json.dumps(results, indent=2) + "\n")
    return DONE


COMMAND = Command(
    name="experiments.loss_scaling scalers",
    about=__doc__,
    options={
        "scalers": Option(("tfamp", "keras"), Patterns(), f"Of {', '.join(SCALERS)}."),
        "out": Option(None, Kind(), "JSON file to write, or to add to."),
    },
    body=_body,
)
main = COMMAND.main
