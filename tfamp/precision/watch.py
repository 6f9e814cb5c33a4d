"""Tells a script on stderr what became of its loss scaling, where nothing else would.

A step that is compiled with XLA cannot print, and `fit` calls the optimizer at each step and at its
end, never in between. So one daemon thread looks at a few counters on the device every five
seconds; the end of `fit` and the end of the process look once more. tfamp's loops and its callback
read the same counters and say it better: they set `announces` to False while they train.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import weakref
from collections.abc import Sequence
from types import FrameType

import keras
import tensorflow as tf

from tfamp.precision import collapse, policy
from tfamp.precision.collapse_note import CollapseNote
from tfamp.precision.state_variables import StateVariables

_SECONDS_BETWEEN_LOOKS = 5.0


class Announcements:
    """What is told of one optimizer, each thing once. It outlives the optimizer, to tell the last.

    Args:
        variables: The optimizer's counters, a few bytes on the device.
        collapse: Its collapse. It is not taken here: that is for whoever asks the optimizer.
    """

    def __init__(self, variables: StateVariables, collapse: CollapseNote) -> None:
        self._variables = variables
        self._collapse = collapse
        self._lock = threading.RLock()
        self._is_on = True
        self._told_collapse_at: int | None = None
        self._has_told_of_losses = False
        self._has_looked_at_averages = False
        # Weak references to the models that it trains; None until the first step looks for them.
        self._models: list[weakref.ref[keras.Model]] | None = None
        # Whether moving averages are put back at a skip: between the two they may be NaN.
        self.keeps_averages = False

    @property
    def is_on(self) -> bool:
        """Whether anything but broken averages is told.

        Who reads and tells it otherwise, as tfamp's loops and its callback do, switches it off
        meanwhile.
        """
        return self._is_on

    @is_on.setter
    def is_on(self, value: bool) -> None:
        with self._lock:
            if value and not self._is_on:
                # What there was until now, whoever read it has told.
                self._told_collapse_at = self._collapse.read_step()
                self._has_told_of_losses = self._read_bad_losses() > 0
            self._is_on = value

    def look_for_models(self, trained: Sequence[keras.Variable]) -> None:
        """Looks, the first time, among the callers for the models of these weights."""
        if self._models is None:
            self._models = models_of_callers(trained)

    def tell(self) -> None:
        """Prints what has not been told yet."""
        with self._lock:
            fallen = self._collapse.read() if self._is_on else None
            if fallen is not None and fallen.step != self._told_collapse_at:
                self._told_collapse_at = fallen.step
                _print(str(fallen))
            skipped = self._read_bad_losses()
            if not skipped:
                return
            if self._is_on and not self._has_told_of_losses:
                self._has_told_of_losses = True
                attempted = int(self._variables.read("attempted"))
                _print(collapse.skipped_non_finite_loss(skipped, attempted))
            # No callback sees these, so they are told whoever tells the rest.
            if not self._has_looked_at_averages and not self.keeps_averages:
                self._has_looked_at_averages = True
                layers = _layers_with_broken_averages([model() for model in self._models or ()])
                if layers:
                    _print(collapse.broken_averages(layers))

    def _read_bad_losses(self) -> int:
        return int(self._variables.read("skipped_non_finite_loss"))


class _Watch:
    """The thread, and what it looks at."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched: list[tuple[weakref.ref[keras.optimizers.Optimizer], Announcements]] = []

    def begin(self, optimizer: keras.optimizers.Optimizer, announcements: Announcements) -> None:
        """Looks at an optimizer from now on."""
        with self._lock:
            self._watched.append((weakref.ref(optimizer), announcements))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tfamp-watch", daemon=True)
                self._thread.start()
                atexit.register(self._at_exit)

    def look(self) -> None:
        """Looks at all, and for the last time at those that are gone."""
        with self._lock:
            for watched in list(self._watched):
                optimizer, announcements = watched
                is_gone = optimizer() is None
                # A look that fails must end neither the thread nor a script that trains well.
                with contextlib.suppress(Exception):
                    announcements.tell()
                if is_gone:
                    self._watched.remove(watched)

    def _run(self) -> None:
        while not self._end.wait(_SECONDS_BETWEEN_LOOKS):
            self.look()

    def _at_exit(self) -> None:
        # TensorFlow must not be at work in a thread while the interpreter ends.
        self._end.set()
        if self._thread is not None:
            self._thread.join(_SECONDS_BETWEEN_LOOKS)
        self.look()


_watch = _Watch()
begin = _watch.begin


def _print(text: str) -> None:
    # A progress bar may be in the middle of its line.
    print(f"\ntfamp: {text}", file=sys.stderr, flush=True)


@tf.autograph.experimental.do_not_convert
def models_of_callers(trained: Sequence[keras.Variable]) -> list[weakref.ref[keras.Model]]:
    """The models of these weights that the callers hold: `self` of a train_step, a loop's `model`.

    An optimizer does not know its model. Asking the garbage collector for all objects would find
    it, and can break another thread's work: it shows tuples that are still being made.
    """
    known = {id(variable) for variable in trained}
    found: dict[int, weakref.ref[keras.Model]] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if issubclass(type(value), keras.Model) and id(value) not in found:
                # A model that is half built has no variables yet.
                with contextlib.suppress(Exception):
                    if any(id(variable) in known for variable in value.trainable_variables):
                        found[id(value)] = weakref.ref(value)
        frame = frame.f_back
    return list(found.values())


def _layers_with_broken_averages(models: Sequence[keras.Model | None]) -> tuple[str, ...]:
    """Paths of the layers whose float state is no longer finite."""
    broken: dict[str, None] = {}
    for model in models:
        if model is None:
            continue
        for layer in policy.all_layers(model):
            state = [v for v in policy.own_variables(layer) if not v.trainable]
            if not all(is_finite(variable) for variable in state):
                broken[policy.path_of(layer)] = None
    return tuple(broken)


def is_finite(variable: keras.Variable) -> bool:
    """Whether a variable holds neither NaN nor infinity; waits for the device."""
    value = tf.convert_to_tensor(variable.value)
    return not value.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(value)))
