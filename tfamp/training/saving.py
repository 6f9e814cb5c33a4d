"""What a run saves: its last weights, the model where it loads again, and the best weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

import tfamp
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory, written_whole
from tfamp.run.result import BEST_WEIGHTS, FINAL_WEIGHTS, MODEL, Saved

# Just the line that the README gives, so that what passes here loads for everybody; the rest comes
# after it. A process of its own, since this one knows classes that another does not.
_LOAD = """
import json, sys
import keras, tfamp
try:
    model = keras.models.load_model(sys.argv[1])
except Exception as error:
    answer = {"error": f"{type(error).__name__}: {error}"}
else:
    from tfamp.training.saving import digest
    answer = {"digest": digest(model)}
print(json.dumps(answer))
"""
_LOAD_TIMEOUT_SEC = 600.0
_NOT_YET = "The process ended before it was saved."
_LEFT_OUT = "Ctrl-C left it out."
_NOT_ASKED = "--nosave_model was set."


class SaveBest(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation accuracy so far, on disk at once.

    Must come before `SwapEMAWeights` in the callbacks: at the end of an evaluation the model then
    still holds the weights that were evaluated.

    Attributes:
        epoch: The best epoch, from 0; None before the first.
        accuracy: Its validation accuracy.
        error: Why weights could not be written, if so; training goes on.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._running = 0
        self.epoch: int | None = None
        self.accuracy = -math.inf
        self.error: str | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes which epoch it is."""
        self._running = epoch

    def on_test_end(self, logs: Any = None) -> None:
        """Saves the weights if none before were better; of equals the first are kept."""
        accuracy = float((logs or {}).get("accuracy", math.nan))
        if not accuracy > self.accuracy:
            return
        try:
            _save_weights(self.model, self._path)
        except Exception as error:
            self.error = _text(error)
            warnings.warn(f"{self._path} could not be written. {self.error}", stacklevel=2)
        else:
            self.epoch, self.accuracy, self.error = self._running, accuracy, None


class Saving:
    """Saves what a run leaves when it ends, however it ends; a failure here is told, not raised.

    Args:
        config: The run's config.
        directory: Its folder.
        model: Its model, compiled.
    """

    def __init__(self, config: Config, directory: RunDirectory, model: keras.Model) -> None:
        self._config = config
        self._directory = directory
        self._model = model
        is_averaged = config.ema_momentum is not None
        self._is_model_left_out = False
        self.best = SaveBest(directory.path / BEST_WEIGHTS) if config.save_best else None
        self.swap = keras.callbacks.SwapEMAWeights() if is_averaged else None
        why_not = _NOT_YET if config.save_model else _NOT_ASKED
        self._saved = Saved(are_averages=is_averaged, why_no_weights=why_not, why_no_model=why_not)

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks that saving needs, in their order."""
        return [callback for callback in (self.best, self.swap) if callback is not None]

    @property
    def saved(self) -> Saved:
        """What is saved so far, for result.json."""
        best = self.best
        if best is None:
            return self._saved
        found = dataclasses.replace(self._saved, why_no_best=best.error)
        if best.epoch is None:
            return found
        return dataclasses.replace(
            found,
            best=BEST_WEIGHTS,
            best_epoch=best.epoch,
            best_validation_accuracy=best.accuracy,
        )

    def save_weights(self) -> None:
        """Saves the last weights; with moving averages these, which is what evaluation takes."""
        if not self._config.save_model:
            return
        try:
            self._take_averages()
            _save_weights(self._model, self._directory.path / FINAL_WEIGHTS)
        except Exception as error:
            self._saved = dataclasses.replace(self._saved, why_no_weights=_text(error))
        else:
            self._saved = dataclasses.replace(
                self._saved, weights=FINAL_WEIGHTS, why_no_weights=None
            )

    def leave_model_out(self) -> None:
        """Lets `save_model` do nothing: the user has no time for it."""
        self._saved = dataclasses.replace(self._saved, why_no_model=_LEFT_OUT)
        self._is_model_left_out = True

    def save_model(self, say: Callable[[str], None]) -> None:
        """Saves the model and keeps the file if a fresh process loads it with the same weights.

        Args:
            say: Where lines for the user go.
        """
        if not self._config.save_model or self._is_model_left_out:
            return
        say("Saving the model and loading it in a fresh process (Ctrl-C leaves it out) ...")
        try:
            with written_whole(self._directory.path / MODEL) as partial:
                with warnings.catch_warnings():
                    # Whether it loads is found out below.
                    warnings.simplefilter("ignore")
                    self._model.save(partial)
                why_not = why_it_does_not_load(partial, digest(self._model))
                if why_not is not None:
                    partial.unlink()
        except KeyboardInterrupt:
            self.leave_model_out()
            return
        except Exception as error:
            why_not = f"It cannot be saved: {_text(error)}"
        if why_not is None:
            self._saved = dataclasses.replace(self._saved, model=MODEL, why_no_model=None)
        else:
            self._saved = dataclasses.replace(self._saved, why_no_model=why_not + self._instead())

    def _take_averages(self) -> None:
        inner = self._model.optimizer.inner_optimizer
        if self.swap is None or not self._model.optimizer.built:
            return
        # An interrupted evaluation leaves weights and averages swapped.
        self.swap.on_test_end()
        # The averages are zero until the first update.
        if int(inner.iterations) > 0:
            inner.finalize_variable_values(self._model.trainable_variables)

    def _instead(self) -> str:
        if not self._config.is_user_model:
            return ""
        file, function = self._config.model.rsplit(":", 1)
        return (
            f" A fresh process knows no class or function of {file} until it has imported the "
            f"file: build the model with {function}() there and load {FINAL_WEIGHTS} into it."
        )


def lines(saved: Saved, place: str | os.PathLike[str]) -> list[str]:
    """What was saved and what could not be, for the console.

    Args:
        saved: `Saving.saved`, as in result.json.
        place: The run's folder.
    """
    said = []
    path = Path(place)
    if saved.weights:
        which = " (the moving averages, as evaluated)" if saved.are_averages else ""
        said.append(f"  weights              {path / saved.weights}{which}")
    if saved.best and saved.best_epoch is not None:
        said.append(
            f"  best weights         {path / saved.best} (epoch {saved.best_epoch + 1}, "
            f"{100 * (saved.best_validation_accuracy or 0.0):.2f} %)"
        )
    if saved.model:
        said.append(f"  model                {path / saved.model}")
    reasons = {
        "weights": saved.why_no_weights,
        "best weights": saved.why_no_best,
        "model": saved.why_no_model,
    }
    for what, why_not in reasons.items():
        if why_not and why_not != _NOT_ASKED:
            said.append(f"  {'no ' + what:<20} {why_not}")
    return said


def digest(model: keras.Model) -> str:
    """A hash over every weight, in the model's order."""
    sha = hashlib.sha256()
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        sha.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    return sha.hexdigest()


def why_it_does_not_load(path: Path, expected: str) -> str | None:
    """Loads a `.keras` file in a fresh process, which takes seconds.

    Args:
        path: The file.
        expected: The `digest` that the loaded model should have.

    Returns:
        None if it loads with these weights, else the reason in a sentence.
    """
    # No GPU: this process holds it. The same tfamp, also where it runs from a checkout.
    places = [str(Path(tfamp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, str(path)],
            capture_output=True,
            text=True,
            env=os.environ | environment,
            timeout=_LOAD_TIMEOUT_SEC,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return f"It had not loaded in a fresh process after {_LOAD_TIMEOUT_SEC:.0f} seconds."
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return f"The process that was to load it ended with code {done.returncode}: {last[0]}."
    if "error" in answer:
        # Of the nested errors the innermost, less the whole config that Keras adds to it.
        reason = answer["error"].rsplit("Exception encountered: ", 1)[-1]
        reason = reason.split(" Full object config")[0].split("\n\nconfig=")[0]
        return f"It does not load in a fresh process: {reason}"
    if answer["digest"] != expected:
        return "It loads in a fresh process, but with other weights than were saved."
    return None


def _save_weights(model: keras.Model, path: Path) -> None:
    with written_whole(path) as partial:
        model.save_weights(partial)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
