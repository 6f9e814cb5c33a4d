"""What tfamp's loss scaler costs beyond Keras's own, per step, interleaved in one process.

    scripts/python.sh experiments/benchmarks/scaler_overhead.py

Four trainers hold the same ResNet-20, data and SGD in mixed_float16 under XLA: {Keras's
LossScaleOptimizer, tfamp's} x {fit, custom loop}. A loop is the same code for both, without
telemetry, so that the optimizer is all that differs. They take turns in stretches of `--steps`
steps, in an order that rotates and is mirrored from round to round. A round gives one ratio, tfamp
to Keras, for each loop; what is reported is the median over rounds and its spread. The goal is a
median of 1.02 or less.

`--accumulation_steps` and `--clip_global_norm` measure the same with those of the inner optimizer.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import arguments
import results
from absl import flags

from tfamp.training import startup

flags.DEFINE_integer("rounds", 31, "Rounds of the four trainers.")
flags.DEFINE_integer("steps", 20, "Steps of each trainer in a round.")
flags.DEFINE_integer("batch_size", 64, "Examples a step.")
flags.DEFINE_integer("accumulation_steps", None, "Of the inner optimizer.")
flags.DEFINE_float("clip_global_norm", None, "Of the inner optimizer.")
flags.DEFINE_bool("jit_compile", True, "Compile the step with XLA.")
flags.DEFINE_string("out", None, "JSON file to write.")
# Quartiles need two rounds.
for name, minimum in (("rounds", 2), ("steps", 1), ("batch_size", 1), ("accumulation_steps", 2)):
    arguments.at_least(name, minimum)
flags.register_validator(
    "clip_global_norm", lambda norm: norm is None or norm > 0, "it must be above 0"
)


def trainer(whose: str, loop: str) -> Callable[[], None]:
    """A function that trains for a stretch of steps, compiled and warmed up."""
    import keras
    import tensorflow as tf

    import tfamp
    from tfamp.data import registry as data_registry
    from tfamp.models import registry as model_registry

    values = flags.FLAGS
    keras.utils.set_random_seed(0)
    data = data_registry.load("fashion_mnist_mini", batch_size=values.batch_size, seed=0)
    model = model_registry.build("resnet20", data.image_shape, data.num_classes)
    inner = keras.optimizers.SGD(
        0.01,
        momentum=0.9,
        weight_decay=1e-4,
        global_clipnorm=values.clip_global_norm,
        gradient_accumulation_steps=values.accumulation_steps,
    )
    wrapper = {
        "keras": keras.optimizers.LossScaleOptimizer,
        "tfamp": tfamp.LossScaleOptimizer,
    }[whose]
    optimizer = wrapper(inner)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, jit_compile=values.jit_compile)
    optimizer.build(model.trainable_variables)
    iterator = iter(data.train)

    @tf.function(jit_compile=values.jit_compile)
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
            scaled = optimizer.scale_loss(value)
        optimizer.apply(tape.gradient(scaled, model.trainable_variables))
        return value

    def custom() -> None:
        for _ in range(values.steps):
            value = step(*next(iterator))
        float(value)

    def fit() -> None:
        model.fit(data.train, epochs=1, steps_per_epoch=values.steps, shuffle=False, verbose=0)

    stretch = {"fit": fit, "custom": custom}[loop]
    stretch()
    return stretch


def summary(ratios: list[float]) -> dict:
    """Median of paired ratios and how far they spread."""
    quarters = statistics.quantiles(ratios, n=4)
    return {
        "median": statistics.median(ratios),
        "quartiles": [quarters[0], quarters[2]],
        "min": min(ratios),
        "max": max(ratios),
        "all": ratios,
    }


def main() -> None:
    startup.import_tensorflow(float16=True)
    from tfamp.precision.policy import global_policy

    values = flags.FLAGS
    names = [(loop, whose) for loop in ("fit", "custom") for whose in ("keras", "tfamp")]
    with global_policy("mixed_float16"):
        trainers = {(loop, whose): trainer(whose, loop) for loop, whose in names}
        times: dict[tuple[str, str], list[float]] = {name: [] for name in names}
        for i in range(values.rounds):
            order = names[i % 4 :] + names[: i % 4]
            for name in order if i // 4 % 2 == 0 else reversed(order):
                start = time.perf_counter()
                trainers[name]()
                times[name].append(time.perf_counter() - start)
            shown = (f"  {n[0]}/{n[1]} {1e3 * times[n][-1] / values.steps:.1f} ms" for n in names)
            print(f"round {i + 1}/{values.rounds}:{''.join(shown)}", flush=True)
    loops = {}
    for loop in ("fit", "custom"):
        ours, theirs = times[loop, "tfamp"], times[loop, "keras"]
        loops[loop] = {
            "step_ms_median": {
                whose: 1e3 * statistics.median(times[loop, whose]) / values.steps
                for whose in ("keras", "tfamp")
            },
            "tfamp_to_keras": summary([a / b for a, b in zip(ours, theirs, strict=True)]),
        }
        ratio = loops[loop]["tfamp_to_keras"]
        low, high = ratio["quartiles"]
        print(f"{loop}: tfamp takes {ratio['median']:.4f} of Keras's time ({low:.3f}-{high:.3f})")
    report = {
        "command": " ".join(["python", *sys.argv]),
        "rounds": values.rounds,
        "steps": values.steps,
        "batch_size": values.batch_size,
        "accumulation_steps": values.accumulation_steps,
        "clip_global_norm": values.clip_global_norm,
        "model": "resnet20",
        "policy": "mixed_float16",
        "jit_compile": values.jit_compile,
        "dataset": "fashion_mnist_mini",
        **results.measured_on(),
        "loops": loops,
    }
    results.write(report, values.out)


if __name__ == "__main__":
    arguments.run(main)
