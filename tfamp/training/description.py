"""What a built run says of itself: to config.json, to TensorBoard, to the user as it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfamp.precision import computes
from tfamp.precision import policy as policy_lib
from tfamp.run import provenance
from tfamp.run.config import HPARAMS
from tfamp.run.run_config import RunConfig
from tfamp.telemetry import memory
from tfamp.training import auto_scale, own_step
from tfamp.training.build import BuiltRun
from tfamp.training.profile import how_to_look


def config_record(
    run: BuiltRun, command_line: Sequence[str], asked: Mapping[str, Any] | None
) -> RunConfig:
    """What config.json says of a run.

    Args:
        run: The run.
        command_line: What the user typed.
        asked: The settings that he gave; None where that is not known.
    """
    return RunConfig(
        config=run.config.to_json(),
        asked=None if asked is None else dict(asked),
        command_line=tuple(command_line),
        versions=provenance.versions(),
        git_revision=provenance.git_revision(),
        device=memory.described_device(),
        tf32=policy_lib.computes_in_tf32(),
        trainable_parameters=computes.trainable_parameters(run.model),
        model_sha256=run.model_files,
        computes_in=computes.computes_in(run.model),
        forced_float32_layers=tuple(run.forced_float32),
        float32_layers_effect=run.float32_effects,
        auto_loss_scale=run.auto_scale,
    )


def hparams(run: BuiltRun) -> dict[str, str | int | float]:
    """What TensorBoard's HParams tab compares runs by."""
    values = {name: getattr(run.config, name) for name in HPARAMS}
    return values | {"loss_scale": _loss_scale_choice(run)}


def _loss_scale_choice(run: BuiltRun) -> str:
    if not policy_lib.float16_layers(run.model):
        return "not used"
    static = run.config.static_loss_scale
    # One spelling for 1024 and 1024.0, which TensorBoard would tell apart.
    return run.config.loss_scale if static is None else f"{static:.9g}"


def say_what(run: BuiltRun, say: Callable[[str], None]) -> None:
    """Says in some lines what is about to be trained, how and on what."""
    config, data, optimizer = run.config, run.data, run.optimizer
    xla = "with XLA" if run.model.jit_compile else "without XLA"
    scale = "none"
    if optimizer.is_scaling:
        kind = "dynamic, from" if optimizer.dynamic else "static,"
        scale = f"{kind} {optimizer.initial_scale:.9g}"
    tf32 = ", TF32 on" if policy_lib.computes_in_tf32() else ""
    say(
        f"{config.model}, {computes.trainable_parameters(run.model):,} trainable parameters, "
        f"{config.policy}{tf32}, {xla}, on {memory.described_device()}"
    )
    say(
        f"{data.name}: {data.num_train:,} training and {data.num_validation:,} validation images, "
        f"{config.epochs} epochs of {config.steps_per_epoch} steps of {config.batch_size}, "
        f"{config.loop} loop, {config.optimizer}, loss scale: {scale}"
    )
    if run.auto_scale is not None:
        say(auto_scale.in_words(run.auto_scale))
    if config.profile_steps:
        first, last = config.profile_steps
        say(
            f"Steps {first} to {last} are traced for TensorBoard's tab Profile: "
            f"{how_to_look(config.logdir)}"
        )
    if own_step.is_unscaled(config, run.model):
        say(
            f"The train_step of {config.model} hands the optimizer gradients of the loss as it is: "
            "nothing scales it, and small float16 gradients vanish. Call "
            "self.optimizer.scale_loss(loss) inside the tape."
        )
    say(computes.in_words(computes.computes_in(run.model), config.policy))
    for pattern, effect in run.float32_effects.items():
        say(computes.effect_in_words(pattern, effect))
    if run.whole_epoch != config.steps_per_epoch:
        say(
            f"Of the set's {run.whole_epoch} batches {config.steps_per_epoch} are an epoch: "
            f"--steps_per_execution={config.steps_per_execution} runs that many at a time."
        )
    left_over = config.epochs * (config.steps_per_epoch or 0) % config.accumulation_steps
    if left_over:
        say(
            f"The gradients of the last {left_over} steps reach no weight: they fill no group of "
            f"--accumulation_steps={config.accumulation_steps}."
        )
