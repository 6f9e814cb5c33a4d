"""Run directories without a run: what `tfamp.train` leaves, with figures that a test knows.

The files are made of the records that the trainer writes, and `tests/e2e/test_run_files.py` holds
their keys, and the names in their rows, to those of a real run.
"""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

from tfamp.run import records
from tfamp.run.config import FLOAT16_POLICIES, Config
from tfamp.run.directory import write_json
from tfamp.run.resolve import default_run_name, resolve
from tfamp.run.result import (
    AutoScale,
    ComputesIn,
    Figures,
    LossScale,
    RunResult,
    Saved,
    Status,
    StepTime,
)
from tfamp.run.run_config import RunConfig

VERSIONS = {"python": "3.11.2", "tfamp": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1"}
CPU = "CPU:0 (a test's CPU)"
REVISION = "a" * 40

STEPS_PER_EPOCH = 20
LOG_EVERY = 5
HOST_PEAK = 2**30


def write_run(
    logdir: pathlib.Path,
    *,
    name: str | None = None,
    step_ms: float = 100.0,
    accuracy: float = 0.8,
    peak: int | None = 2**27,
    scales: list[float] | None = None,
    skips: tuple[int, ...] = (),
    non_finite_steps: tuple[int, ...] = (),
    zero_fraction: float | None = None,
    device: str = CPU,
    tf32_in_effect: bool = False,
    trainable_parameters: int | None = 1000,
    model_sha256: dict[str, str] | None = None,
    computes_in: ComputesIn | None = None,
    auto: AutoScale | None = None,
    **flags: Any,
) -> pathlib.Path:
    """Writes one completed run.

    Args:
        logdir: Where its folder goes.
        name: The folder; tfamp's default name unless given.
        step_ms: Its median step time; the windows go up and down around it.
        accuracy: Its final validation accuracy.
        peak: Its device peak in bytes, None where it was not measured.
        scales: The scale of each step; a constant 2^15 unless given. Ignored where nothing is
            scaled.
        skips: Steps that were skipped.
        non_finite_steps: Steps with a NaN gradient norm, and a NaN loss from the first on.
        zero_fraction: Share of zero gradients in every step of a float16 run.
        device: Its device.
        tf32_in_effect: What result.json says of TF32.
        trainable_parameters: What config.json says of them, None as an older one that says nothing.
        model_sha256: Likewise, of the content of a user's model.
        computes_in: What both files say of it; None as older ones that say nothing.
        auto: What `--loss_scale=auto` chose.
        **flags: Fields of the config.

    Returns:
        The run's folder.
    """
    values = {"steps_per_epoch": STEPS_PER_EPOCH, "epochs": 3, "log_every": LOG_EVERY}
    values |= {"jit_compile": True} | flags
    config = resolve(Config(**values))
    folder = logdir / (name or default_run_name(config))
    folder.mkdir(parents=True)
    is_float16 = config.policy in FLOAT16_POLICIES
    is_scaled = is_float16 and config.loss_scale != "none"
    per_epoch = config.steps_per_epoch or STEPS_PER_EPOCH
    steps = config.epochs * per_epoch
    scales = scales or [2.0**15] * steps
    rows: list[dict[str, Any]] = []
    windows = []
    epoch_times = []
    skipped = in_a_row = 0
    for step in range(1, steps + 1):
        epoch = (step - 1) // per_epoch
        broken = bool(non_finite_steps) and step > non_finite_steps[0]
        row: dict[str, Any] = {
            "kind": "step",
            "step": step,
            "epoch": epoch,
            records.TRAIN_LOSS: math.nan if broken else 2.3 * math.exp(-2.0 * step / steps) + 0.1,
            records.LEARNING_RATE: 0.1,
            records.GRADIENT_NORM: math.nan if step in non_finite_steps else 1.0,
        }
        if is_scaled:
            in_a_row = in_a_row + 1 if step in skips else 0
            skipped += step in skips
            row |= {
                records.SCALE: scales[step - 1],
                records.GROWTH_COUNTER: step,
                records.SKIPPED_TOTAL: skipped,
                records.SKIPPED_IN_A_ROW: in_a_row,
                records.SKIPPED_NON_FINITE_LOSS: 0,
            }
        if is_float16 and zero_fraction is not None:
            row[records.GRADIENT_ZEROS] = zero_fraction
            row[records.GRADIENT_NON_FINITE] = float(step in non_finite_steps)
        if step % LOG_EVERY == 0:
            # Up and down by a tenth, in turns: the median is step_ms where windows are odd.
            sway = (0.0, 0.1, -0.1)[len(windows) % 3]
            windows.append(step_ms * (1 + sway))
            row[records.STEP_TIME] = windows[-1]
            row[records.THROUGHPUT] = 1e3 * config.batch_size / windows[-1]
            row[records.TRAIN_ACCURACY] = accuracy * step / steps
        rows.append(row)
        if step % per_epoch == 0:
            epoch_times.append(step_ms * per_epoch / 1e3 + (20.0 if epoch == 0 else 0.0))
            rows.append(
                {
                    "kind": "epoch",
                    "step": step,
                    "epoch": epoch,
                    records.TRAIN_LOSS: row[records.TRAIN_LOSS],
                    records.TRAIN_ACCURACY: accuracy * step / steps,
                    records.VALIDATION_LOSS: row[records.TRAIN_LOSS],
                    records.VALIDATION_ACCURACY: accuracy * step / steps,
                    records.EPOCH_TIME: epoch_times[-1],
                }
                | {records.HOST_PEAK: HOST_PEAK}
                | ({records.DEVICE_PEAK: peak, records.DEVICE_CURRENT: peak // 2} if peak else {})
            )
    last = rows[-1]
    ordered = sorted(windows)
    median = ordered[(len(ordered) - 1) // 2]
    loss_scale = LossScale(
        mode="dynamic" if config.has_moving_scale else "static",
        initial=scales[0],
        final=scales[-1],
        min=min(scales),
        max=max(scales),
        skipped=skipped,
        skipped_non_finite_loss=0,
        first_skips=skips[:10],
    )
    if auto is not None:
        loss_scale = loss_scale.with_auto(auto)
    figures = Figures(
        epochs=config.epochs,
        steps_attempted=steps,
        steps_applied=steps - skipped,
        validation_accuracy=accuracy,
        validation_loss=last[records.TRAIN_LOSS],
        train_loss=last[records.TRAIN_LOSS],
        epoch_time_sec=tuple(epoch_times),
        first_call_sec=20.0,
        step_time_ms=StepTime(
            median=median, p95=ordered[math.ceil(0.95 * len(ordered)) - 1], n=steps - 1
        ),
        examples_per_sec=1e3 * config.batch_size / median,
        device_peak_bytes=peak,
        host_peak_rss_bytes=HOST_PEAK,
        loss_scale=loss_scale if is_scaled else None,
        metrics={
            name: last[name]
            for name in (
                records.TRAIN_LOSS,
                records.TRAIN_ACCURACY,
                records.VALIDATION_LOSS,
                records.VALIDATION_ACCURACY,
            )
        },
    )
    said = RunConfig(
        config=config.to_json(),
        asked={"policy": config.policy, "seed": config.seed},
        command_line=(
            "/home/me/tfamp/train.py",
            f"--policy={config.policy}",
            f"--seed={config.seed}",
        ),
        saves=("final.weights.h5", "model.keras"),
        versions=VERSIONS,
        git_revision=REVISION,
        device=device,
        tf32=tf32_in_effect,
        trainable_parameters=trainable_parameters,
        model_sha256=model_sha256,
        computes_in=computes_in,
        forced_float32_layers=(),
        float32_layers_effect={},
    )
    (folder / "metrics.jsonl").write_text("".join(_line(row) for row in rows))
    write_json(folder / "config.json", said.to_json())
    result = result_of(config, device, tf32_in_effect, figures, computes_in)
    write_json(folder / "result.json", result.to_json())
    return folder


def result_of(
    config: Config,
    device: str = CPU,
    tf32_in_effect: bool = False,
    figures: Figures | None = None,
    computes_in: ComputesIn | None = None,
    status: Status = "completed",
) -> RunResult:
    """A result.json of a run of this config; without figures it did not come to its first step."""
    return RunResult(
        status=status,
        error=None,
        policy=config.policy,
        loop=config.loop,
        model=config.model,
        dataset=config.dataset,
        seed=config.seed,
        tf32=tf32_in_effect,
        jit_compile=config.jit_compile,
        computes_in=computes_in,
        device=device,
        versions=VERSIONS,
        saved=Saved(weights="final.weights.h5", are_averages=False, model="model.keras"),
        figures=figures,
    )


def _line(row: dict[str, Any]) -> str:
    return json.dumps(_numbers(row), allow_nan=False) + "\n"


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: records.to_json_number(value) if isinstance(value, float) else value
        for name, value in values.items()
    }


def rewrite(path: pathlib.Path, **changes: Any) -> None:
    """Changes fields of a JSON file; a value of `...` takes the field out."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({n: v for n, v in values.items() if v is not ...}))


def write_sweep(logdir: pathlib.Path, seeds: int = 3) -> None:
    """A sweep as the experiment's: four precisions, both loops, some seeds."""
    for loop in ("fit", "custom"):
        for seed in range(seeds):
            both = {"loop": loop, "seed": seed}
            drift = 1 + 0.02 * seed
            write_run(
                logdir,
                policy="float32",
                step_ms=100 * drift,
                accuracy=0.80 + 0.01 * seed,
                peak=200 * 2**20,
                **both,
            )
            write_run(
                logdir,
                policy="mixed_bfloat16",
                step_ms=81 * drift + seed,
                accuracy=0.801 + 0.008 * seed,
                peak=120 * 2**20,
                **both,
            )
            scales = [2.0**16] * 4 + [2.0**15] * 30 + [2.0**16] * 26
            write_run(
                logdir,
                policy="mixed_float16",
                step_ms=70 * drift - seed,
                accuracy=0.799 + 0.011 * seed,
                peak=110 * 2**20,
                scales=scales,
                skips=(4,),
                zero_fraction=0.3,
                **both,
            )
            write_run(
                logdir,
                policy="mixed_float16",
                loss_scale="none",
                step_ms=69 * drift,
                name=f"resnet20-fashion_mnist_mini-mixed_float16-{loop}-none-seed{seed}",
                accuracy=0.6 + 0.02 * seed,
                peak=110 * 2**20,
                zero_fraction=0.7,
                **both,
            )
