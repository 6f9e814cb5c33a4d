"""Remakes tests/precision/data/torch_grad_scaler.npz: what torch's GradScaler does, step by step.

    TFAMP_EXTRAS=torch scripts/python.sh scripts/make_torch_trajectories.py

Each case is a GradScaler's arguments and 1,000 steps, finite or not. In the file:

    torch      its version
    pattern    [cases] name of the pattern
    settings   [cases, 4] init_scale, growth_factor, backoff_factor, growth_interval
    is_finite  [cases, 1000] bool
    scales     [cases, 1001] float32: what step i's loss is multiplied by, and the scale at the end
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

STEPS = 1000
OUT = Path(__file__).parents[1] / "tests" / "precision" / "data" / "torch_grad_scaler.npz"


def patterns() -> Iterator[tuple[str, list[bool]]]:
    """Named lists of `STEPS` booleans, True where the gradient is finite."""
    for seed, share in enumerate((0.001, 0.01, 0.05, 0.2, 0.5, 0.8)):
        rng = random.Random(seed)
        yield f"random_{share}", [rng.random() >= share for _ in range(STEPS)]
    for seed in (10, 11):
        rng = random.Random(seed)
        runs = (itertools.repeat(is_finite, rng.randint(1, 60 if is_finite else 25))
                for is_finite in itertools.cycle((True, False)))  # fmt: skip
        yield f"bursts_{seed}", list(itertools.islice(itertools.chain.from_iterable(runs), STEPS))
    yield "all_finite", [True] * STEPS
    yield "long_overflow", [True] * 300 + [False] * 60 + [True] * 640
    yield "overflow_at_each_growth", [i % 11 != 10 for i in range(STEPS)]


KEYS = ("init_scale", "growth_factor", "backoff_factor", "growth_interval")
SETTINGS = [
    {"init_scale": 2.0**15, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000},
    {"init_scale": 2.0**16, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 100},
    {"init_scale": 2.0**10, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 10},
    {"init_scale": 1024.0, "growth_factor": 1.25, "backoff_factor": 0.8, "growth_interval": 7},
    {"init_scale": 3.0, "growth_factor": 1.001, "backoff_factor": 0.9, "growth_interval": 1},
    {"init_scale": 2.0**20, "growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 50},
]

# Outside these tfamp, which has a floor and a ceiling, cannot follow.
LOWEST, HIGHEST = 2.0**-126, 2.0**126


def trajectory(settings: dict[str, float], is_finite: list[bool]) -> list[float]:
    """The scale before each step, and after the last."""
    scaler = torch.amp.GradScaler(device="cpu", **settings)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scales = []
    scaler.scale(torch.zeros(1))  # Makes the scale's tensor.
    for finite in is_finite:
        scales.append(scaler.get_scale())
        weight.grad = torch.full((1,), 1.0 if finite else math.inf)
        scaler.step(optimizer)
        scaler.update()
    return [*scales, scaler.get_scale()]


def main() -> None:
    """Writes the file."""
    names, settings_of, finite_of, scales_of = [], [], [], []
    for settings in SETTINGS:
        for name, is_finite in patterns():
            scales = trajectory(settings, is_finite)
            if min(scales) > LOWEST and max(scales) < HIGHEST:
                names.append(name)
                settings_of.append([settings[key] for key in KEYS])
                finite_of.append(is_finite)
                scales_of.append(scales)
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        OUT,
        torch=np.array(torch.__version__),
        pattern=np.array(names),
        settings=np.array(settings_of, "float64"),
        is_finite=np.array(finite_of),
        scales=np.array(scales_of, "float32"),
    )
    print(f"{len(names)} cases, {OUT.stat().st_size} bytes: {OUT}")


if __name__ == "__main__":
    main()
