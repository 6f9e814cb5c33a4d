"""A run as a whole: from a config to a finished run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfamp.data import registry as data_registry
from tfamp.models import registry as model_registry
from tfamp.models import user_files
from tfamp.precision import computes
from tfamp.precision import policy as policy_lib
from tfamp.precision.loss_scale import LossScaleOptimizer
from tfamp.precision.moving_averages import kept_moving_averages
from tfamp.run import memory, provenance, records
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.errors import ExitCalled, InputError
from tfamp.training import optim, own_step
from tfamp.training import saving as saving_lib
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop
from tfamp.training.interrupt import RunInterrupted, StopOnSignal
from tfamp.training.non_finite import NonFiniteRun, StopOnNonFinite
from tfamp.training.profile import ProfileSteps, how_to_look
from tfamp.training.progress import ProgressBar
from tfamp.training.saving import Saving
from tfamp.training.telemetry import PrecisionTelemetry


@dataclasses.dataclass
class Run:
    """A run that is built and has not begun.

    Attributes:
        config: The resolved config; `jit_compile` and `steps_per_epoch` are decided.
        data: The data.
        model: The compiled model.
        loss: Its loss function.
        forced_float32: Paths of the layers that `--float32_layers` forced.
        float32_effects: What each of its patterns changed.
        whole_epoch: Steps that an epoch would have had without `--steps_per_execution`.
    """

    config: Config
    data: data_registry.ImageData
    model: keras.Model
    loss: keras.losses.Loss
    forced_float32: list[str]
    float32_effects: dict[str, dict[str, list[str]]]
    whole_epoch: int

    @property
    def optimizer(self) -> LossScaleOptimizer:
        """The optimizer, with the bookkeeping of loss scaling."""
        return self.model.optimizer


def build(config: Config) -> Run:
    """Builds data, model and optimizer. The global policy must be set already.

    Raises:
        InputError: The config asks for something that is not there or does not fit.
    """
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
            f"--{name}={getattr(config, name)}, but no layer of {config.model} computes in "
            f"float16. Leave --{name} out."
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
            f"--accumulation_steps={config.accumulation_steps}: the run has {steps} steps, so no "
            f"update would ever be made. Set {steps} or less, or more --epochs or "
            "--steps_per_epoch."
        )
    if config.profile_steps and config.profile_steps[0] > steps:
        first, last = config.profile_steps
        raise InputError(
            f"--profile_steps={first},{last}: the run has {steps} steps, so nothing would be "
            f"traced. Set a first step of {steps} or less."
        )
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.label_smoothing
    )
    _compile(model, loss, config, has_float16)
    calls_scale_loss = own_step.calls_scale_loss(config, model, data.train.element_spec)
    if model.optimizer.is_scaling and not calls_scale_loss:
        _compile(model, loss, own_step.unscaled(config), has_float16)
    whole = asked_steps or data.steps_per_epoch
    return Run(config, data, model, loss, forced, effects, whole)


def _compile(
    model: keras.Model, loss: keras.losses.Loss, config: Config, has_float16: bool
) -> None:
    steps = config.epochs * (config.steps_per_epoch or 0)
    optimizer = optim.build(
        config,
        total_updates=max(1, steps // config.accumulation_steps),
        scaled=has_float16,
        history=config.log_every + config.steps_per_execution,
    )
    model.compile(
        optimizer=optimizer,
        loss=loss,
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
            f"--steps_per_execution={config.steps_per_execution} exceeds the {steps} steps of an "
            "epoch. Set a smaller one, or a larger --steps_per_epoch."
        )
    if config.steps_per_epoch and rounded != steps:
        whole_executions = config.steps_per_execution
        raise InputError(
            f"--steps_per_epoch={steps} is no multiple of --steps_per_execution="
            f"{whole_executions}, and an epoch is made of whole executions. Set "
            f"--steps_per_epoch={rounded} or {rounded + whole_executions}, or another "
            "--steps_per_execution."
        )
    return rounded


def _decide_jit(asked: bool | None, has_float16: bool) -> bool:
    # float16 on a CPU is emulated op by op without XLA, which is much slower.
    if asked is not None:
        return asked
    return has_float16 or bool(tf.config.list_physical_devices("GPU"))


def train(
    config: Config, command_line: Sequence[str] = (), say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Trains as the config says and writes the run directory.

    Args:
        config: A resolved config.
        command_line: What the user typed, for config.json.
        say: Where lines for the user go.

    Returns:
        The result, as in result.json: `status` is completed, interrupted or failed.

    Raises:
        InputError: The config cannot be run; nothing was written.
        RunInterrupted: A signal ended the run; result.json says so.
        NonFiniteRun: Weights or losses were NaN or infinite, or no step was applied; likewise.
        ExitCalled: The user's code called `sys.exit`; result.json says so.
        Exception: Whatever made the run fail; result.json says so.
    """
    directory = RunDirectory(f"{config.logdir}/{config.run_name}", config.saved_names)
    directory.check(config.overwrite)
    run: Run | None = None
    telemetry: PrecisionTelemetry | None = None
    saving: Saving | None = None
    result: dict[str, Any] = {}

    def ended(error: BaseException | None) -> dict[str, Any]:
        if run is None:
            directory.prepare(config.overwrite)
        counted = computes.computes_in(run.model) if run else None
        settled = run.config if run else config
        result.update(_finish(settled, counted, telemetry, saving, directory, error))
        return result

    def save_model() -> None:
        if saving is not None and result:
            _save_model(saving, directory, result, say)

    with contextlib.ExitStack() as stack:
        # First in, last out: Ctrl-C is then Python's own again, for the model to be left out.
        stack.callback(save_model)
        stop = stack.enter_context(StopOnSignal(ended, str(directory.path)))
        try:
            memory.grow_gpu_memory()
            stack.enter_context(policy_lib.tf32(config.tf32))
            stack.enter_context(policy_lib.global_policy(config.policy))
            if config.deterministic:
                tf.config.experimental.enable_op_determinism()
                # keras-cv's layers ask for it; what they draw comes from seeds of tfamp's own.
                tf.random.set_global_generator(tf.random.Generator.from_seed(config.seed))
            say(f"Building {config.model} and loading {config.dataset} ...")
            # Before it is imported: what was trained, should someone edit the file meanwhile.
            model_files = user_files.sha256(config.model)
            run = build(config)
            replaced = directory.prepare(config.overwrite)
            if replaced is not None:
                say(f"What an earlier run left in {directory.path} is in {replaced}.")
            directory.write_config(_config_record(run, command_line, model_files))
            _say_what(run, say)
            telemetry = PrecisionTelemetry(
                directory.path,
                log_every=config.log_every,
                batch_size=config.batch_size,
                owns_result=False,
            )
            telemetry.recorder.files.hparams = _hparams(run)
            telemetry.non_finite.stops = config.stop_on_non_finite
            saving = Saving(config, directory, run.model)
            _loop(run, telemetry, saving, stop)
            steps = run.optimizer.steps_attempted, run.optimizer.steps_applied
            why_no_success = telemetry.non_finite.verdict(*steps)
            if why_no_success:
                raise NonFiniteRun(why_no_success)
        except InputError:
            raise
        except SystemExit as call:
            called = ExitCalled(call)
            stop.end(called)
            raise called from call
        except BaseException as error:
            stop.end(error)
            raise
        return stop.end(None)


def _loop(run: Run, telemetry: PrecisionTelemetry, saving: Saving, stop: StopOnSignal) -> None:
    config, model, data = run.config, run.model, run.data
    steps = config.steps_per_epoch or data.steps_per_epoch
    callbacks: list[keras.callbacks.Callback] = []
    if config.profile_steps:
        events = str(telemetry.directory.path / "train")
        callbacks.append(ProfileSteps(events, *config.profile_steps))
    callbacks += [telemetry, StopOnNonFinite(telemetry, config.stop_on_non_finite)]
    callbacks += [ProgressBar(telemetry, config.epochs, steps), *saving.callbacks, stop]
    listed = DeviceCallbackList(
        callbacks, add_history=True, model=model, epochs=config.epochs, steps=steps, verbose=0
    )
    if config.loop == "custom":
        CustomLoop(model, run.loss).run(data.train, data.validation, config.epochs, steps, listed)
    else:
        with kept_moving_averages(model):
            model.fit(
                data.train,
                validation_data=data.validation,
                epochs=config.epochs,
                steps_per_epoch=steps,
                callbacks=listed,
                shuffle=False,
                verbose=0,
            )


def _finish(
    config: Config,
    computes_in: dict[str, Any] | None,
    telemetry: PrecisionTelemetry | None,
    saving: Saving | None,
    directory: RunDirectory,
    error: BaseException | None,
) -> dict[str, Any]:
    status = "completed"
    if error is not None:
        was_stopped = isinstance(error, (RunInterrupted, KeyboardInterrupt))
        status = "interrupted" if was_stopped else "failed"
    device = memory.training_device()
    result: dict[str, Any] = {
        "schema_version": records.SCHEMA_VERSION,
        "status": status,
        "error": _error_text(error) if status == "failed" else None,
        "policy": config.policy,
        "loop": config.loop,
        "model": config.model,
        "dataset": config.dataset,
        "seed": config.seed,
        "tf32": policy_lib.computes_in_tf32(),
        "jit_compile": config.jit_compile,
        "computes_in": computes_in,
        "device": f"{device} ({memory.device_name(device)})",
        "versions": provenance.versions(),
    }
    if saving is not None:
        result["saved"] = saving.record
    if error is not None:
        # First what is certain: after a failure the device may answer no more.
        directory.write_result(result)
    is_written = error is not None
    try:
        result |= _end_of_rows(telemetry, status, error) if telemetry else {}
        directory.write_result(result)
        is_written = True
    finally:
        if saving is not None:
            saving.save_weights()
            result["saved"] = saving.record
            if is_written:
                directory.write_result(result)
    return result


def _end_of_rows(
    telemetry: PrecisionTelemetry, status: str, error: BaseException | None
) -> dict[str, Any]:
    try:
        telemetry.event(status, {"error": _error_text(error)} if error else None)
    finally:
        telemetry.close()
    return telemetry.result()


def _save_model(
    saving: Saving, directory: RunDirectory, result: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Saves the model once all else is on disk: result.json is true also if this is cut short."""
    saving.save_model(say)
    result["saved"] = saving.record
    try:
        directory.write_result(result)
    except OSError as error:
        say(f"{directory.result} does not tell of the model: {error}")
    if result["status"] != "completed":
        # A completed run ends with a summary, which has them.
        for line in saving_lib.lines(result["saved"], directory.path):
            say(line)


def _error_text(error: BaseException | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"


def _config_record(
    run: Run, command_line: Sequence[str], model_files: dict[str, str] | None
) -> dict[str, Any]:
    device = memory.training_device()
    return {
        "schema_version": records.SCHEMA_VERSION,
        "config": run.config.to_json(),
        "command_line": list(command_line),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "device": f"{device} ({memory.device_name(device)})",
        "tf32": policy_lib.computes_in_tf32(),
        "trainable_parameters": _trainable(run.model),
        "model_sha256": model_files,
        "computes_in": computes.computes_in(run.model),
        "forced_float32_layers": run.forced_float32,
        "float32_layers_effect": run.float32_effects,
    }


def _trainable(model: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def _hparams(run: Run) -> dict[str, str | int | float]:
    """What TensorBoard's HParams tab compares runs by."""
    config = run.config
    return {
        "policy": config.policy,
        "loss_scale": _loss_scale_choice(run),
        "model": config.model,
        "dataset": config.dataset,
        "loop": config.loop,
        "learning_rate": config.learning_rate or 0.0,
        "batch_size": config.batch_size,
        "seed": config.seed,
    }


def _loss_scale_choice(run: Run) -> str:
    if not policy_lib.float16_layers(run.model):
        return "not used"
    static = run.config.static_loss_scale
    # One spelling for 1024 and 1024.0, which TensorBoard would tell apart.
    return run.config.loss_scale if static is None else f"{static:.9g}"


def _say_what(run: Run, say: Callable[[str], None]) -> None:
    config, data, optimizer = run.config, run.data, run.optimizer
    device = memory.training_device()
    xla = "with XLA" if run.model.jit_compile else "without XLA"
    scale = "none"
    if optimizer.is_scaling:
        kind = "dynamic, from" if optimizer.dynamic else "static,"
        scale = f"{kind} {optimizer.initial_scale:.9g}"
    tf32 = ", TF32 on" if policy_lib.computes_in_tf32() else ""
    say(
        f"{config.model}, {_trainable(run.model):,} trainable parameters, {config.policy}{tf32}, "
        f"{xla}, on {device} ({memory.device_name(device)})"
    )
    say(
        f"{data.name}: {data.num_train:,} training and {data.num_validation:,} validation images, "
        f"{config.epochs} epochs of {config.steps_per_epoch} steps of {config.batch_size}, "
        f"{config.loop} loop, {config.optimizer}, loss scale: {scale}"
    )
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
