"""A user's own network: `--model=path/to/file.py:function`.

The function takes `input_shape` (height, width, channels) and `num_classes` and returns a
`keras.Model` whose output is logits. It is called with the precision policy already set. What
it must keep is checked here, so that a mistake is told in words and not as a shape error
inside the training step.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfamp.run.catalogue import USER_MODEL, user_model
from tfamp.run.errors import InputError, nearest_names, setting

if TYPE_CHECKING:
    import keras

_FORM = f"{setting('model')} takes {USER_MODEL}"


def check_file(name: str) -> None:
    """Checks the form of the name and that the file can be read, without running anything.

    Args:
        name: `path/to/file.py:function`.

    Raises:
        InputError: The form is wrong, or the file is absent or unreadable.
    """
    path, _ = user_model(name)
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise InputError(
            f"{setting('model', name)}: {path} {what}. {_FORM}, relative to {Path.cwd()}."
        )
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(
            f"{setting('model', name)}: {path} cannot be read ({error.strerror}). "
            f"{_FORM}: set the file's permissions or name another."
        ) from error


def build(name: str, input_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Runs the user's function and checks what it returns.

    The model is the user's object itself, with all that its class does. It is called once on a
    symbolic batch, which builds it. Its logits may be of 16 bits: the loss and the metrics of
    both loops take them in float32. A `Dense(..., dtype="float32")` at the end is better, since
    it does not round first.

    Args:
        name: `path/to/file.py:function`.
        input_shape: Height, width, channels of one image.
        num_classes: The number of logits.

    Returns:
        What the function returned, built: from images `(batch, *input_shape)` to logits
        `(batch, num_classes)` of any float dtype.

    Raises:
        InputError: The file fails to import, or the function takes or returns what does not fit.
        Exception: Whatever the function itself raises: a bug of its own, not a wrong flag.
    """
    import keras

    check_file(name)
    path, _ = user_model(name)
    with _importable_directory(path.parent):
        function = _function(name)
        with _explained(f"{setting('model', name)}: the function takes other arguments", path):
            inspect.signature(function).bind(input_shape, num_classes)
        model = function(input_shape, num_classes)
    if not isinstance(model, keras.Model):
        raise InputError(
            f"{setting('model', name)}: the function returned {type(model).__name__}, not a "
            f"keras.Model. {_FORM}, where function(input_shape, num_classes) returns a keras.Model."
        )
    images = keras.Input(input_shape, name="image")
    problem = f"{setting('model', name)}: the model does not take images of shape {input_shape}"
    with _explained(problem, path):
        logits = model(images)
    _check_logits(name, model, logits, num_classes)
    if not model.trainable_variables:
        raise InputError(
            f"{setting('model', name)}: none of the {len(model.weights)} weights of {model.name!r} "
            "is trainable, so there is nothing to train. Set trainable=True on the layers that "
            f"shall learn, or name another model in {setting('model')}."
        )
    return model


def _function(name: str) -> Callable[..., Any]:
    """Imports the file and returns the function."""
    path, function_name = user_model(name)
    with _explained(f"{setting('model', name)}: {path} fails to import", path):
        module = _import_file(path)
    function = getattr(module, function_name, None)
    if callable(function):
        return function
    known = sorted(
        key
        for key, value in vars(module).items()
        if callable(value)
        and not key.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    )
    near = nearest_names(function_name, known, limit=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"{setting('model', name)}: {path} has no function {function_name!r}.{guess} It defines: "
        f"{', '.join(known) or 'no functions'}. Set {setting('model', f'{path}:function')} to one."
    )


def _import_file(path: Path) -> ModuleType:
    """Runs a Python file as a module of its own, under a name that depends on its path."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    module_name = f"tfamp_user_model_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, pickling and Keras registration look a class's module up by name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


@contextmanager
def _importable_directory(directory: Path) -> Iterator[None]:
    """Lets the user's file import its neighbours, after everything installed."""
    entry = str(directory.resolve())
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextmanager
def _explained(problem: str, path: Path) -> Iterator[None]:
    """Turns what the user's code raises into an `InputError` that says where."""
    try:
        yield
    # A script without a __main__ guard may well end in sys.exit().
    except (Exception, SystemExit) as error:
        resolved = path.resolve()
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == resolved
        ]
        where = f" at {path}, line {lines[-1]}" if lines else ""
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            said = f"it called sys.exit({error.code!r})"
        raise InputError(
            f"{problem}: {said}{where}. "
            f"{_FORM}, where function(input_shape, num_classes) returns a keras.Model."
        ) from error


def _check_logits(name: str, model: keras.Model, logits: Any, num_classes: int) -> None:
    """Refuses an output that is not one row of `num_classes` logits an image."""
    shape = getattr(logits, "shape", None)
    if shape is None or tuple(shape) != (None, num_classes):
        came = f"shape {tuple(shape)}" if shape is not None else f"a {type(logits).__name__}"
        raise InputError(
            f"{setting('model', name)}: the model's output is {came}; it must be one tensor of "
            f"shape (None, {num_classes}), a logit for each class. Use the num_classes that the "
            f"function is given, or set {setting('dataset')} to data with that many classes."
        )
    if "float" not in str(logits.dtype):
        raise InputError(
            f"{setting('model', name)}: the model's output is {logits.dtype}, which has no "
            "gradient. Logits are float numbers. Remove the cast at the end, or name another "
            f"model in {setting('model')}."
        )
    # Custom, nested and unnamed endings are left alone: this catches the common mistake only.
    if not model.layers:
        return
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    if activation == "softmax" or type(last).__name__ == "Softmax":
        raise InputError(
            f"{setting('model', name)}: the model ends in a softmax (layer {last.name!r}). The "
            "loss takes logits, and a second softmax would flatten its gradient. Remove the "
            f"softmax, or name another model in {setting('model')}."
        )
