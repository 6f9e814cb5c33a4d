"""Three ways to lose steps, and what is left of a training: tfamp, Keras and PyTorch side by side.

    scripts/python.sh experiments/bad_batches.py [--ways=tfamp,keras,torch] [--out=FILE]

A classifier with BatchNormalization trains in mixed float16, 32 examples a step, on three streams:

- forty_nan: the first 40 batches hold NaN, then come 1,280 good ones.
- one_corrupt: one example in 3,200 holds NaN, so one step in 100 is lost, for 40 epochs.
- forty_overflows: 40 batches whose loss is finite and whose gradient is not, then 1,280 good ones.

Each way is the plain script of its guide: `fit` with the optimizer that scales (`tfamp_kept` with
`tfamp.kept_moving_averages` around it), or PyTorch's loop with autocast and GradScaler. `torch`
needs PyTorch, perhaps in an environment of its own: with --out, the ways are added to the file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH, EXAMPLES, FEATURES, CLASSES = 32, 3200, 8, 4
WAYS = ("tfamp", "tfamp_kept", "keras", "torch")
LEARNING_RATE = 0.05

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def examples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around four centres, and their classes as one-hot rows."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    classes = generator.integers(0, CLASSES, count)
    points = centres[classes] + generator.normal(size=(count, FEATURES))
    return points.astype("float32"), np.eye(CLASSES, dtype="float32")[classes]


def batches(stream: str) -> Batches:
    """The training batches of a stream, in order."""
    inputs, labels = examples(EXAMPLES, seed=1)
    if stream == "one_corrupt":
        inputs = inputs.copy()
        inputs[EXAMPLES // 2, 0] = math.nan
    steps = 4000 if stream == "one_corrupt" else 1320
    for step in range(steps):
        start = step * BATCH % EXAMPLES
        x, y = inputs[start : start + BATCH], labels[start : start + BATCH]
        if step < 40 and stream == "forty_nan":
            x = np.full_like(x, math.nan)
        if step < 40 and stream == "forty_overflows":
            # A weight of 1e30 on one example: fits float32, and float16 at no scale there is.
            y = y * np.where(np.arange(BATCH) == 3, 1e30, 1.0).astype("float32")[:, None]
        yield x, y


STREAMS = ("forty_nan", "one_corrupt", "forty_overflows")


def with_keras(way: str, stream: str) -> dict[str, Any]:
    """Trains through `fit`."""
    import keras
    import tensorflow as tf

    import tfamp

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(32, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dense(CLASSES, dtype="float32"),
        ]
    )
    wrap = keras.optimizers.LossScaleOptimizer if way == "keras" else tfamp.LossScaleOptimizer
    optimizer = wrap(keras.optimizers.SGD(LEARNING_RATE))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, metrics=["accuracy"], jit_compile=False)
    shapes = (
        tf.TensorSpec((BATCH, FEATURES), tf.float32),
        tf.TensorSpec((BATCH, CLASSES), tf.float32),
    )
    data = tf.data.Dataset.from_generator(lambda: batches(stream), output_signature=shapes)
    steps = sum(1 for _ in batches(stream))
    data = data.apply(tf.data.experimental.assert_cardinality(steps))
    kept = tfamp.kept_moving_averages(model) if way == "tfamp_kept" else contextlib.nullcontext()
    with kept:
        model.fit(data, verbose=0, shuffle=False)
    x, y = examples(800, seed=2)
    val_loss, accuracy = model.evaluate(x, y, batch_size=800, verbose=0)
    return {
        "applied": int(optimizer.iterations.numpy()),
        "scale": float(optimizer.dynamic_scale.numpy()),
        "validation_loss": val_loss,
        "validation_accuracy": accuracy,
    }


def with_torch(stream: str) -> dict[str, Any]:
    """Trains through the loop of PyTorch's guide to automatic mixed precision."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 32, bias=False),
        # Keras's momentum and epsilon.
        torch.nn.BatchNorm1d(32, eps=1e-3, momentum=0.01),
        torch.nn.ReLU(),
        torch.nn.Linear(32, CLASSES),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    # Keras's first scale; torch's own is 2^16.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15)
    applied = 0
    for x, y in batches(stream):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            logits = model(torch.from_numpy(x))
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(y))
        scaler.scale(loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        applied += scaler.get_scale() >= before
    model.eval()
    x, y = examples(800, seed=2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        logits = model(torch.from_numpy(x)).float()
    targets = torch.from_numpy(y)
    correct = (logits.argmax(1) == targets.argmax(1)).float().mean()
    return {
        "applied": applied,
        "scale": scaler.get_scale(),
        "validation_loss": float(torch.nn.functional.cross_entropy(logits, targets)),
        "validation_accuracy": float(correct),
    }


def versions() -> dict[str, str]:
    """Versions of what has been imported."""
    names = ("tensorflow", "keras", "torch", "numpy")
    return {name: sys.modules[name].__version__ for name in names if name in sys.modules}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", default="tfamp,tfamp_kept,keras", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--streams", default=",".join(STREAMS), help=f"of {', '.join(STREAMS)}")
    parser.add_argument("--out", type=Path, help="JSON file to write, or to add to")
    arguments = parser.parse_args()
    ways, streams = arguments.ways.split(","), arguments.streams.split(",")
    for given, known in ((ways, WAYS), (streams, STREAMS)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    if "torch" in ways:
        with contextlib.suppress(ImportError):
            import torch  # noqa: F401
        if "torch" not in sys.modules:
            parser.error("--ways=torch needs PyTorch here: pip install torch")
    results: dict[str, Any] = {"results": {}, "versions": {}}
    if arguments.out and arguments.out.exists():
        results = json.loads(arguments.out.read_text())
    for stream in streams:
        steps = sum(1 for _ in batches(stream))
        print(f"{stream}: {steps:,} steps")
        for way in ways:
            found = with_torch(stream) if way == "torch" else with_keras(way, stream)
            print(
                f"  {way:12} applied {found['applied']:5,}  scale 2^{math.log2(found['scale']):g}"
                f"  validation loss {found['validation_loss']:.4f}"
                f"  accuracy {100 * found['validation_accuracy']:.2f} %",
                flush=True,
            )
            found = {
                name: value if math.isfinite(value) else "NaN" for name, value in found.items()
            }
            results["results"].setdefault(stream, {"steps": steps})[way] = found
    results["versions"] |= versions()
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
