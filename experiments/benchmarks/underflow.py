"""What the underflow meter costs: tfamp's loops with it and without, interleaved in one process.

    scripts/python.sh experiments/benchmarks/underflow.py

Two trainers hold the same ResNet-20 under mixed_float16, data and SGD, one with
`--underflow_every=N`. They take turns of N steps, so that each turn has one measurement, in a
rotating order; what is reported is the median over rounds of the ratio, and its spread. Compiling
is not timed. `--clock=cpu` counts the process's CPU time, which other work leaves alone.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import arguments
import results
from absl import flags
from interleave import Turns, paired_ratios

from tfamp.run import config as config_lib
from tfamp.run.resolve import resolve
from tfamp.training import startup

flags.DEFINE_integer("rounds", 20, "Timed turns of each trainer.")
flags.DEFINE_integer("every", 100, "Steps between two measurements, and in a turn.")
flags.DEFINE_integer("batch_size", 64, "Examples a step.")
flags.DEFINE_list("loops", list(config_lib.LOOPS), "Loops to measure.")
flags.DEFINE_list("of", list(config_lib.UNDERFLOW_OF), "What the meter looks at.")
flags.DEFINE_enum("clock", "wall", ["wall", "cpu"], "Which time is taken.")
flags.DEFINE_string("out", None, "JSON file to write.")
arguments.at_least("rounds", 2)
arguments.at_least("every", 1)
arguments.at_least("batch_size", 1)

ENDLESS = 1_000_000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def trainer_of(turns: Turns, name: str, loop: str, **meter: object) -> Callable[[], None]:
    """One of tfamp's loops with everything that a default run has."""
    from tfamp.run.directory import RunDirectory
    from tfamp.telemetry.callback import PrecisionTelemetry
    from tfamp.training import trainer
    from tfamp.training.callbacks import DeviceCallbackList
    from tfamp.training.custom import CustomLoop

    config = resolve(
        config_lib.Config(
            policy="mixed_float16",
            loop=loop,
            batch_size=flags.FLAGS.batch_size,
            epochs=ENDLESS // 100,
        )
    )
    run = trainer.build(config)
    directory = RunDirectory(tempfile.mkdtemp())
    directory.prepare()
    telemetry = PrecisionTelemetry(
        directory.path, batch_size=config.batch_size, owns_result=False, **meter
    )
    callbacks = DeviceCallbackList(
        [telemetry, Gate(turns, name)],
        add_history=True,
        model=run.model,
        epochs=1,
        steps=ENDLESS,
        verbose=0,
    )
    if loop == "custom":
        custom = CustomLoop(run.model, telemetry.underflow)
        return lambda: custom.run(run.data.train, None, 1, ENDLESS, callbacks)
    return lambda: run.model.fit(
        run.data.train, steps_per_epoch=ENDLESS, shuffle=False, callbacks=callbacks, verbose=0
    )


class Gate:
    """A callback that waits for the trainer's turn before each step."""

    def __init__(self, turns: Turns, name: str) -> None:
        self.on_train_batch_begin = turns.gate(name, lambda batch, logs=None: None)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **keywords: None


def measure(loop: str, of: str) -> dict:
    """The ratio of a loop with the meter to the same without."""
    from tfamp.precision.policy import global_policy

    values = flags.FLAGS
    turns = Turns(values.every, values.rounds, CLOCKS[values.clock])
    with global_policy("mixed_float16"):
        loops = {
            "without": trainer_of(turns, "without", loop),
            "with": trainer_of(turns, "with", loop, underflow_every=values.every, underflow_of=of),
        }
    print(f"{loop}, {of}: {values.rounds} rounds of {2 * values.every} steps ...", flush=True)
    with contextlib.redirect_stdout(io.StringIO()):
        seconds = turns.run(loops)
    ratio = paired_ratios(seconds["with"], seconds["without"])
    low, high = ratio["median_95_interval"]
    print(f"{loop}, {of}: {ratio['median']:.4f} of the loop without ({low:.4f} to {high:.4f})")
    steps = {
        f"{name}_step_ms_median": 1e3 * statistics.median(times) / values.every
        for name, times in seconds.items()
    }
    return {"ratio_to_without": ratio, **steps}


def main() -> None:
    values = flags.FLAGS
    startup.import_tensorflow(float16=True)

    report = {
        "command": " ".join(["python", *sys.argv]),
        "clock": values.clock,
        "rounds": values.rounds,
        "every": values.every,
        "batch_size": values.batch_size,
        "model": "resnet20",
        "dataset": "fashion_mnist_mini",
        "policy": "mixed_float16",
        **results.measured_on(),
        "loops": {loop: {of: measure(loop, of) for of in values.of} for loop in values.loops},
    }
    results.write(report, values.out)


if __name__ == "__main__":
    arguments.run(main)
