"""From a config to a run that has not begun: data, model, optimizer, loss."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfamp.data import registry as data_registry
from tfamp.models import registry as model_registry
from tfamp.models import user_files
from tfamp.precision import computes
from tfamp.precision import policy as policy_lib
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.run.config import Config
from tfamp.run.errors import InputError, setting
from tfamp.run.result import AutoScale
from tfamp.run.run_config import Float32Effect
from tfamp.telemetry import memory
from tfamp.training import optim, own_step


@dataclasses.dataclass
class BuiltRun:
    """A run that is built and has not begun: all that was decided.

    Attributes:
        config: The resolved config; `jit_compile` and `steps_per_epoch` are decided.
        data: The data.
        model: The compiled model.
        model_files: Hashes of the user's model file and of what it imports beside it, by path;
            None for a model of tfamp's.
        forced_float32: Paths of the layers that `--float32_layers` forced.
        float32_effects: What each of its patterns changed.
        whole_epoch: Steps that an epoch would have had without `--steps_per_execution`.
        auto_scale: What `--loss_scale=auto` chose; None without it.
    """

    config: Config
    data: data_registry.ImageData
    model: keras.Model
    model_files: dict[str, str] | None
    forced_float32: list[str]
    float32_effects: dict[str, Float32Effect]
    whole_epoch: int
    auto_scale: AutoScale | None = None

    @property
    def optimizer(self) -> RecordedOptimizer:
        """The optimizer, with the bookkeeping of loss scaling."""
        return self.model.optimizer

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, a multiple of `steps_per_execution`."""
        return self.config.steps_per_epoch or self.data.steps_per_epoch


@contextlib.contextmanager
def process_settings(config: Config) -> Iterator[None]:
    """The settings of the process under which a run is built and trains, while it is open."""
    memory.grow_gpu_memory()
    with policy_lib.tf32(config.tf32), policy_lib.global_policy(config.policy):
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
            # keras-cv's layers ask for it; what they draw comes from seeds of tfamp's own.
            tf.random.set_global_generator(tf.random.Generator.from_seed(config.seed))
        yield


def build(config: Config, start_step: int = 0) -> BuiltRun:
    """Builds data, model and optimizer, inside `process_settings`.

    Args:
        config: A resolved config.
        start_step: Steps that the run has taken already: the training data begins behind them.

    Raises:
        InputError: The config asks for something that is not there or does not fit.
    """
    # Before it is imported: what was trained, should someone edit the file meanwhile.
    model_files = user_files.sha256(config.model)
    keras.utils.set_random_seed(config.seed)
    data = data_registry.load(
        config.dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        image_size=config.image_size,
        data_dir=config.data_dir,
        num_classes=config.num_classes,
        num_examples=config.num_examples,
        augment=config.augment,
        deterministic=config.deterministic,
        start_step=start_step,
    )
    # Again, so that the weights do not depend on how the data was made.
    keras.utils.set_random_seed(config.seed)
    model = model_registry.build(config.model, data.image_shape, data.num_classes)
    own_step.check_loop(config, model)
    effects = computes.float32_effects(model, config.float32_layers)
    forced = policy_lib.force_float32(model, config.float32_layers)
    has_float16 = bool(policy_lib.float16_layers(model))
    if not has_float16 and config.scale_settings:
        name = config.scale_settings[0]
        raise InputError(
            f"{setting(name, getattr(config, name))}, but no layer of {config.model} computes in "
            f"float16. Leave {setting(name)} out."
        )
    if not has_float16 and config.underflow_every is not None:
        raise InputError(
            f"{setting('underflow_every', config.underflow_every)}, but no layer of {config.model} "
            f"computes in float16, so nothing underflows. Leave {setting('underflow_every')} out."
        )
    asked_steps = config.steps_per_epoch
    config = dataclasses.replace(
        config,
        steps_per_epoch=_steps_per_epoch(config, data.steps_per_epoch),
        jit_compile=_decide_jit(config.jit_compile, has_float16),
    )
    steps = config.epochs * (config.steps_per_epoch or 0)
    if config.accumulation_steps > steps:
        raise InputError(
            f"{setting('accumulation_steps', config.accumulation_steps)}: the run has {steps} "
            f"steps, so no update would ever be made. Set {steps} or less, or more "
            f"{setting('epochs')} or {setting('steps_per_epoch')}."
        )
    if config.profile_steps and config.profile_steps[0] > steps:
        first, last = config.profile_steps
        raise InputError(
            f"{setting('profile_steps', (first, last))}: the run has {steps} steps, so nothing "
            f"would be traced. Set a first step of {steps} or less."
        )
    _compile(model, config, has_float16)
    calls_scale_loss = own_step.calls_scale_loss(config, model, data.train.element_spec)
    if config.underflow_every is not None and not calls_scale_loss:
        raise InputError(
            f"{setting('underflow_every', config.underflow_every)}, but the train_step of "
            f"{config.model} never calls self.optimizer.scale_loss(loss), so what float16 loses of "
            "its gradient cannot be seen. Take the gradient of what that returns, or leave "
            f"{setting('underflow_every')} out."
        )
    if model.optimizer.is_scaling and not calls_scale_loss:
        _compile(model, own_step.unscaled(config), has_float16)
    _build_optimizer(model)
    whole = asked_steps or data.steps_per_epoch
    return BuiltRun(config, data, model, model_files, forced, effects, whole)


def compile_anew(run: BuiltRun, config: Config) -> None:
    """Gives a built run another config with the optimizer that it describes; no weight moves."""
    run.config = config
    _compile(run.model, config, bool(policy_lib.float16_layers(run.model)))
    _build_optimizer(run.model)


def _build_optimizer(model: keras.Model) -> None:
    with model.distribute_strategy.scope():
        # An optimizer that is built inside the first step has `fit` trace that step twice.
        model.optimizer.build(model.trainable_variables)


def _compile(model: keras.Model, config: Config, has_float16: bool) -> None:
    steps = config.epochs * (config.steps_per_epoch or 0)
    optimizer = optim.build(
        config,
        total_updates=max(1, steps // config.accumulation_steps),
        scaled=has_float16,
        history=config.log_every + config.steps_per_execution,
    )
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=config.jit_compile,
        steps_per_execution=config.steps_per_execution,
    )


def _steps_per_epoch(config: Config, whole: int) -> int:
    # fit always runs whole executions: an epoch that is no multiple would grow beyond its end.
    steps = config.steps_per_epoch or whole
    rounded = steps - steps % config.steps_per_execution
    if rounded == 0:
        raise InputError(
            f"{setting('steps_per_execution', config.steps_per_execution)} exceeds the {steps} "
            f"steps of an epoch. Set a smaller one, or a larger {setting('steps_per_epoch')}."
        )
    if config.steps_per_epoch and rounded != steps:
        whole_executions = config.steps_per_execution
        raise InputError(
            f"{setting('steps_per_epoch', steps)} is no multiple of "
            f"{setting('steps_per_execution', whole_executions)}, and an epoch is made of whole "
            f"executions. Set {setting('steps_per_epoch', rounded)} or "
            f"{rounded + whole_executions}, or another {setting('steps_per_execution')}."
        )
    return rounded


def _decide_jit(asked: bool | None, has_float16: bool) -> bool:
    # float16 on a CPU is emulated op by op without XLA, which is much slower.
    if asked is not None:
        return asked
    return has_float16 or bool(tf.config.list_physical_devices("GPU"))
