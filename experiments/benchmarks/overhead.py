"""What tfamp costs: its two loops against a bare `compile` and `fit`, interleaved in one process.

    scripts/python.sh experiments/benchmarks/overhead.py

Three trainers hold the same ResNet-20, data and SGD: (bare) compile and fit of Keras with a silent
progress bar, (fit) tfamp's fit loop and (custom) its custom loop, both with all default telemetry.
They take turns of `--steps` steps in a rotating order, so that each round gives a ratio to the bare
fit; what is reported is the median over rounds and its spread. Compiling is not timed.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Callable

import arguments
import results
from absl import flags
from interleave import Turns, paired_ratios

from tfamp.run import config as config_lib
from tfamp.run.errors import unknown_name
from tfamp.run.resolve import resolve
from tfamp.training import startup

flags.DEFINE_integer("rounds", 60, "Timed turns of each trainer.")
flags.DEFINE_integer("steps", 10, "Steps in a turn; a multiple of log_every, 10.")
flags.DEFINE_integer("batch_size", 64, "Examples a step.")
flags.DEFINE_list("policies", ["float32", "mixed_bfloat16"], "Policies to measure.")
flags.DEFINE_string("out", None, "JSON file to write.")
# Quartiles need two rounds.
arguments.at_least("rounds", 2)
arguments.at_least("batch_size", 1)
flags.register_validator(
    "steps", lambda steps: steps > 0 and steps % 10 == 0, "it must be a multiple of 10, from 10"
)

ENDLESS = 1_000_000


def bare(turns: Turns, policy: str, batch_size: int) -> Callable[[], None]:
    """Keras alone: what a careful user would write."""
    import keras

    from tfamp.data import registry as data_registry
    from tfamp.models import registry as model_registry
    from tfamp.training import trainer

    keras.utils.set_random_seed(0)
    data = data_registry.load("fashion_mnist_mini", batch_size=batch_size, seed=0)
    model = model_registry.build("resnet20", data.image_shape, data.num_classes)
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(0.1, ENDLESS), momentum=0.9, weight_decay=1e-4
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        # As tfamp chooses: on a CPU XLA makes float16 several times as fast.
        jit_compile=trainer.build(resolve(config_lib.Config(policy=policy))).model.jit_compile,
    )
    model.make_train_function()
    model.train_function = turns.gate("bare", model.train_function)
    return lambda: model.fit(data.train, steps_per_epoch=ENDLESS, shuffle=False, verbose=0)


def ours(turns: Turns, policy: str, loop: str, batch_size: int) -> Callable[[], None]:
    """tfamp's own loop with everything that a default run has."""
    from tfamp.run.config import Config
    from tfamp.run.directory import RunDirectory
    from tfamp.telemetry.callback import PrecisionTelemetry
    from tfamp.telemetry.progress import ProgressBar
    from tfamp.training import trainer
    from tfamp.training.callbacks import DeviceCallbackList
    from tfamp.training.custom import CustomLoop
    from tfamp.training.interrupt import StopOnSignal

    config = resolve(Config(policy=policy, loop=loop, batch_size=batch_size, epochs=ENDLESS // 100))
    run = trainer.build(config)
    directory = RunDirectory(tempfile.mkdtemp())
    directory.prepare()
    telemetry = PrecisionTelemetry(
        directory.path, log_every=config.log_every, batch_size=batch_size, owns_result=False
    )
    callbacks = DeviceCallbackList(
        [telemetry, ProgressBar(telemetry, 1, ENDLESS), StopOnSignal()],
        add_history=True,
        model=run.model,
        epochs=1,
        steps=ENDLESS,
        verbose=0,
    )
    if loop == "custom":
        custom = CustomLoop(run.model)
        custom._some_steps = turns.gate("custom", custom._some_steps)
        return lambda: custom.run(run.data.train, None, 1, ENDLESS, callbacks)
    run.model.make_train_function()
    run.model.train_function = turns.gate("fit", run.model.train_function)
    return lambda: run.model.fit(
        run.data.train, steps_per_epoch=ENDLESS, shuffle=False, callbacks=callbacks, verbose=0
    )


def measure(policy: str, rounds: int, steps: int, batch_size: int) -> dict:
    """Ratios of tfamp's loops to the bare fit under one policy."""
    from tfamp.precision.policy import global_policy

    turns = Turns(steps, rounds)
    with global_policy(policy):
        loops = {
            "bare": bare(turns, policy, batch_size),
            "fit": ours(turns, policy, "fit", batch_size),
            "custom": ours(turns, policy, "custom", batch_size),
        }
    print(f"{policy}: {rounds} rounds of {3 * steps} steps ...", flush=True)
    with contextlib.redirect_stdout(io.StringIO()):
        seconds = turns.run(loops)
    report: dict = {
        name: {"step_ms_median": 1e3 * statistics.median(times) / steps}
        for name, times in seconds.items()
    }
    for name in ("fit", "custom"):
        ratio = paired_ratios(seconds[name], seconds["bare"])
        report[name]["ratio_to_bare"] = ratio
        low, high = ratio["median_95_interval"]
        print(f"{policy} {name}: {ratio['median']:.4f} of the bare fit ({low:.4f} to {high:.4f})")
    return report


def main() -> None:
    values = flags.FLAGS
    for policy in values.policies:
        if policy not in config_lib.POLICIES:
            raise unknown_name("policy", policy, config_lib.POLICIES, "policies")
    startup.import_tensorflow()

    report = {
        "command": " ".join(["python", *sys.argv]),
        "rounds": values.rounds,
        "steps": values.steps,
        "batch_size": values.batch_size,
        "model": "resnet20",
        "dataset": "fashion_mnist_mini",
        **results.measured_on(),
        "policies": {
            policy: measure(policy, values.rounds, values.steps, values.batch_size)
            for policy in values.policies
        },
    }
    results.write(report, values.out)


if __name__ == "__main__":
    arguments.run(main)
