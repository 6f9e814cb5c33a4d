"""The optimizer of a run: schedule, update rule, and the wrapper that owns loss scaling."""

from __future__ import annotations

import typing

import keras

from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.run.config import SCALE_SETTINGS, Config

# Biases and the scales and shifts of normalisation layers are not decayed
# (Goyal et al. 2017, arXiv 1706.02677, section 5.3, and common practice since).
_NOT_DECAYED = ["bias", "gamma", "beta"]


def learning_rate(
    config: Config, total_updates: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over optimizer updates.

    Args:
        config: A resolved config.
        total_updates: Updates in the whole run; cosine reaches 0 there.

    Returns:
        A float, or a schedule with linear warm-up from 0 over `config.warmup_steps`.
    """
    peak = typing.cast(float, config.learning_rate)
    warmup = config.warmup_steps
    if config.lr_schedule == "constant":
        if not warmup:
            return float(peak)
        return keras.optimizers.schedules.PolynomialDecay(0.0, warmup, peak)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=max(1, total_updates - warmup),
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )


def build(config: Config, total_updates: int, scaled: bool, history: int) -> RecordedOptimizer:
    """Builds the optimizer of a run.

    Args:
        config: A resolved config.
        total_updates: Updates in the whole run, for the schedule.
        scaled: Whether the model computes in float16 somewhere, so that the loss is scaled
            unless `config.loss_scale` is `"none"`, and its zero gradients are counted.
        history: Steps whose record is kept on the device.

    Returns:
        A `LossScaleOptimizer`, or the `RecordedOptimizer` that it builds on.
    """
    common = {
        "learning_rate": learning_rate(config, total_updates),
        "weight_decay": config.weight_decay or None,
        "global_clipnorm": config.clip_global_norm,
        "use_ema": config.ema_momentum is not None,
        "ema_momentum": config.ema_momentum or 0.0,
        "gradient_accumulation_steps": (
            config.accumulation_steps if config.accumulation_steps > 1 else None
        ),
    }
    if config.optimizer == "adamw":
        inner = keras.optimizers.AdamW(**(common | {"weight_decay": config.weight_decay or 0.0}))
    else:
        inner = keras.optimizers.SGD(momentum=config.momentum, **common)
    if config.weight_decay:
        inner.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    if not scaled or config.loss_scale == "none":
        return RecordedOptimizer(inner, history=history, counts_zeros=scaled)
    static = config.static_loss_scale
    if static is not None:
        return LossScaleOptimizer(
            inner,
            static,
            dynamic=False,
            max_skipped_in_a_row=config.max_skipped_in_a_row,
            history=history,
            counts_zeros=scaled,
        )
    return LossScaleOptimizer(
        inner,
        **{rule: getattr(config, name) for name, rule in SCALE_SETTINGS.items()},
        history=history,
        counts_zeros=scaled,
    )
