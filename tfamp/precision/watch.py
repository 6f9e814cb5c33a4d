"""Tells a script on stderr what became of its loss scaling, where nothing else would.

A step that is compiled with XLA cannot print, and `fit` calls the optimizer at each step and at its
end, never in between. So one daemon thread looks at a few counters on the device every five
seconds; the end of `fit` and the end of the process look once more. tfamp's loops and its callback
read the same counters and say it better: they set `announces` to False while they train.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import sys
import threading
import weakref
from collections.abc import Sequence
from types import FrameType

import keras
import tensorflow as tf

from tfamp.precision import collapse
from tfamp.precision.scale_machine import ScaleMachine

_SECONDS_BETWEEN_LOOKS = 5.0


@dataclasses.dataclass
class _Watched:
    """An optimizer that is looked at; its counters outlive it, to be told of at last.

    Attributes:
        optimizer: A weak reference to it.
        machine: Its counters, a few bytes on the device.
        told_collapse_at: The step of the last collapse that was told. It is not taken: that is
            for whoever asks the optimizer.
        has_told_of_losses: Whether skips with a non-finite loss were told.
        has_looked_at_averages: Whether the moving averages were looked at since.
    """

    optimizer: weakref.ref[keras.optimizers.Optimizer]
    machine: ScaleMachine
    told_collapse_at: int | None = None
    has_told_of_losses: bool = False
    has_looked_at_averages: bool = False

    def tell(self) -> None:
        if self.machine.announces:
            fallen = self.machine.read_collapse()
            if fallen is not None and fallen.step != self.told_collapse_at:
                self.told_collapse_at = fallen.step
                _print(str(fallen))
        skipped = self.machine.read("skipped_non_finite_loss")
        if not skipped:
            return
        if self.machine.announces and not self.has_told_of_losses:
            self.has_told_of_losses = True
            _print(collapse.skipped_non_finite_loss(skipped, self.machine.read("attempted")))
        # No callback sees these, so they are told whoever tells the rest.
        if not self.has_looked_at_averages and not self.machine.keeps_averages:
            self.has_looked_at_averages = True
            layers = _layers_with_broken_averages([model() for model in self.machine.models or ()])
            if layers:
                _print(collapse.broken_averages(layers))


class _Watch:
    """The thread, and what it looks at."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched: list[_Watched] = []

    def begin(self, optimizer: keras.optimizers.Optimizer, machine: ScaleMachine) -> None:
        """Looks at an optimizer from now on."""
        with self._lock:
            self._watched.append(_Watched(weakref.ref(optimizer), machine))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tfamp-watch", daemon=True)
                self._thread.start()
                atexit.register(self._at_exit)

    def tell(self, machine: ScaleMachine) -> None:
        """Prints at once what has not been told of an optimizer yet."""
        with self._lock:
            for watched in self._watched:
                if watched.machine is machine:
                    watched.tell()

    def consider_told(self, machine: ScaleMachine) -> None:
        """Takes what there is to tell of an optimizer as told, by whoever read it."""
        with self._lock:
            for watched in self._watched:
                if watched.machine is machine:
                    watched.told_collapse_at = machine.read_collapsed_at()
                    watched.has_told_of_losses = machine.read("skipped_non_finite_loss") > 0

    def look(self) -> None:
        """Looks at all, and for the last time at those that are gone."""
        with self._lock:
            for watched in list(self._watched):
                is_gone = watched.optimizer() is None
                # A look that fails must end neither the thread nor a script that trains well.
                with contextlib.suppress(Exception):
                    watched.tell()
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
tell = _watch.tell
consider_told = _watch.consider_told


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
        for layer in model._flatten_layers(include_self=False):
            if not all(is_finite(variable) for variable in layer._non_trainable_variables):
                broken[layer.path or layer.name] = None
    return tuple(broken)


def is_finite(variable: keras.Variable) -> bool:
    """Whether a variable holds neither NaN nor infinity; waits for the device."""
    value = tf.convert_to_tensor(variable.value)
    return not value.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(value)))
