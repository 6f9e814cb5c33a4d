"""What tfamp costs: its two loops against a bare `compile` and `fit`, interleaved in one process.

    python experiments/benchmarks/overhead.py --out=experiments/results/overhead.json

Three trainers hold the same ResNet-20, data and SGD: (bare) compile and fit of Keras with a silent
progress bar, (fit) tfamp's fit loop and (custom) its custom loop, both with all default telemetry.
They take turns in stretches of `--steps` steps; the order within a round rotates. A round gives a
ratio to the bare fit for each loop; what is reported is the median over rounds and its spread.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

from tfamp.run import quiet

flags.DEFINE_integer("rounds", 15, "Rounds of the three trainers.")
flags.DEFINE_integer("steps", 40, "Steps of each trainer in a round.")
flags.DEFINE_integer("batch_size", 64, "Examples a step.")
flags.DEFINE_list("policies", ["float32", "mixed_bfloat16"], "Policies to measure.")
flags.DEFINE_string("out", None, "JSON file to write.")


class Stretches:
    """Runs a callable that trains for ever in stretches, on demand, from the same thread."""

    def __init__(self, begin: Callable[[], None], stretch: Callable[[], None]) -> None:
        begin()
        self._stretch = stretch

    def seconds(self) -> float:
        """Wall time of one stretch."""
        start = time.perf_counter()
        self._stretch()
        return time.perf_counter() - start


def bare(steps: int, batch_size: int) -> Stretches:
    """Keras alone: what a careful user would write."""
    import keras

    from tfamp.data import registry as data_registry
    from tfamp.models import registry as model_registry

    keras.utils.set_random_seed(0)
    data = data_registry.load("fashion_mnist_mini", batch_size=batch_size, seed=0)
    model = model_registry.build("resnet20", data.image_shape, data.num_classes)
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(0.1, 10_000), momentum=0.9, weight_decay=1e-4
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )

    def stretch() -> None:
        model.fit(data.train, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)

    return Stretches(stretch, stretch)


def ours(policy: str, loop: str, steps: int, batch_size: int) -> Stretches:
    """tfamp's own loop with everything that a default run has."""
    import contextlib
    import io

    from tfamp.run.config import Config, resolve
    from tfamp.run.directory import RunDirectory
    from tfamp.training import trainer
    from tfamp.training.callbacks import DeviceCallbackList
    from tfamp.training.custom import CustomLoop
    from tfamp.training.progress import ProgressBar
    from tfamp.training.telemetry import PrecisionTelemetry

    config = resolve(Config(policy=policy, loop=loop, batch_size=batch_size, epochs=100))
    run = trainer.build(config)
    silent = io.StringIO()
    custom = CustomLoop(run.model, run.loss) if loop == "custom" else None
    folder = tempfile.mkdtemp()
    count = 0

    def stretch() -> None:
        nonlocal count
        count += 1
        directory = RunDirectory(Path(folder) / str(count))
        directory.prepare()
        telemetry = PrecisionTelemetry(
            directory.path, log_every=config.log_every, batch_size=batch_size, owns_result=False
        )
        callbacks = DeviceCallbackList(
            [telemetry, ProgressBar(telemetry, 1, steps)],
            add_history=True,
            model=run.model,
            epochs=1,
            steps=steps,
            verbose=0,
        )
        with contextlib.redirect_stdout(silent):
            if custom:
                custom.run(run.data.train, None, 1, steps, callbacks)
            else:
                run.model.fit(
                    run.data.train,
                    epochs=1,
                    steps_per_epoch=steps,
                    shuffle=False,
                    callbacks=callbacks,
                    verbose=0,
                )

    return Stretches(stretch, stretch)


def measure(policy: str, rounds: int, steps: int, batch_size: int) -> dict:
    """Ratios of tfamp's loops to the bare fit under one policy."""
    from tfamp.precision.policy import global_policy

    with global_policy(policy):
        trainers = {
            "bare": bare(steps, batch_size),
            "fit": ours(policy, "fit", steps, batch_size),
            "custom": ours(policy, "custom", steps, batch_size),
        }
        names = list(trainers)
        times: dict[str, list[float]] = {name: [] for name in names}
        for i in range(rounds):
            for name in names[i % 3 :] + names[: i % 3]:
                times[name].append(trainers[name].seconds())
            print(f"{policy} round {i + 1}/{rounds}:", end="")
            print("".join(f"  {n} {1e3 * times[n][-1] / steps:.1f} ms" for n in names), flush=True)
    report: dict = {
        name: {"step_ms_median": 1e3 * statistics.median(times[name]) / steps} for name in names
    }
    for name in ("fit", "custom"):
        ratios = [a / b for a, b in zip(times[name], times["bare"], strict=True)]
        quarters = statistics.quantiles(ratios, n=4)
        report[name]["ratio_to_bare"] = {
            "median": statistics.median(ratios),
            "quartiles": [quarters[0], quarters[2]],
            "min": min(ratios),
            "max": max(ratios),
            "all": ratios,
        }
        print(f"{policy} {name}: {statistics.median(ratios):.4f} of the bare fit")
    return report


def main(argv: list[str]) -> None:
    quiet.import_tensorflow()
    from tfamp.run import memory, provenance

    values = flags.FLAGS
    report = {
        "command": " ".join(["python", *sys.argv]),
        "rounds": values.rounds,
        "steps": values.steps,
        "batch_size": values.batch_size,
        "model": "resnet20",
        "dataset": "fashion_mnist_mini",
        "device": memory.device_name(memory.training_device()),
        "cpu_count": os.cpu_count(),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "policies": {
            policy: measure(policy, values.rounds, values.steps, values.batch_size)
            for policy in values.policies
        },
    }
    if values.out:
        Path(values.out).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
