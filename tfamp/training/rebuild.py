"""A run that ended, built again with the weights that it left; it does not go on training."""

from __future__ import annotations

import warnings

import keras

from tfamp.models import user_files
from tfamp.precision import computes
from tfamp.run.config import Config
from tfamp.run.errors import InputError, setting
from tfamp.run.past_run import PastRun
from tfamp.run.run_config import changed_files, short_hash
from tfamp.training.build import BuiltRun, build

# No weight that anybody trained is this throughout; float16 holds it, rounded.
_NOT_LOADED = -54321.0


def rebuild(past: PastRun, config: Config) -> BuiltRun:
    """Builds a model and its data as `config` says, and gives the model a run's weights.

    Args:
        past: The run.
        config: Of its model and its data; the precision may be another. Inside `process_settings`.

    Raises:
        InputError: What is built is not what the run trained; or its weights are not finite.
    """
    _check_files(past, config)
    run = build(config)
    _check_size(past, run.model)
    _load(past, run.model)
    _check_finite(past, run.model)
    return run


def _check_files(past: PastRun, config: Config) -> None:
    there, here = past.record.model_sha256, user_files.sha256(config.model)
    if there is None or here is None:
        return
    changed = [
        f"{name} ({short_hash(a)} then, {short_hash(b)} now)"
        for name, (a, b) in changed_files(there, here).items()
    ]
    if changed:
        raise InputError(
            f"{setting('run', str(past.path))} trained {setting('model', config.model)}, of which "
            f"was edited since: {', '.join(changed)}. Its weights may mean something else now. Put "
            "the files back as they were, or train the model again."
        )


def _check_size(past: PastRun, model: keras.Model) -> None:
    then, now = past.record.trainable_parameters, computes.trainable_parameters(model)
    if then is not None and then != now:
        raise InputError(
            f"{setting('run', str(past.path))}: its weights do not fit. {past.config.model} had "
            f"{then:,} trainable parameters there and has {now:,} here: {_AGAIN}"
        )


def _load(past: PastRun, model: keras.Model) -> None:
    floats = [each for each in model.weights if "float" in str(each.dtype)]
    marks = [keras.ops.full(each.shape, _NOT_LOADED, each.dtype) for each in floats]
    for variable, mark in zip(floats, marks, strict=True):
        variable.assign(mark)
    # The file holds the run's optimizer too, of which nobody asks anything here.
    optimizer, model.optimizer = model.optimizer, None
    try:
        with warnings.catch_warnings():
            # Keras warns of what a file lacks, and of much that is no weight; asked below.
            warnings.simplefilter("ignore")
            model.load_weights(past.weights)
    except Exception as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise InputError(
            f"{past.weights} does not fit {past.config.model} as it is built here: {reason[0]} "
            f"{_AGAIN}"
        ) from error
    finally:
        model.optimizer = optimizer
    for variable, mark in zip(floats, marks, strict=True):
        if bool(keras.ops.all(keras.ops.equal(variable, mark))):
            raise InputError(
                f"{past.weights} does not fit {past.config.model} as it is built here: it has no "
                f"{variable.path}. {_AGAIN}"
            )


_AGAIN = "Use the tfamp, the data and the model that it was trained with, or train it again."


def _check_finite(past: PastRun, model: keras.Model) -> None:
    for variable in model.weights:
        if "float" in str(variable.dtype) and not bool(keras.ops.all(keras.ops.isfinite(variable))):
            ended = "" if past.result is None else f" The run ended as {past.result.status}."
            raise InputError(
                f"{past.weights}: {variable.path} holds NaN or infinity, in which every precision "
                f"fails alike.{ended} Give a run whose weights are finite."
            )
