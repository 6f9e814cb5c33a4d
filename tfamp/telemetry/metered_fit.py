"""`fit`, with a meter around each step of one training, which it does not know of."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfamp.precision.underflow import UnderflowMeter

# How `fit` learns that its data has ended.
_ENDS = (StopIteration, tf.errors.OutOfRangeError)


class MeteredFit:
    """Puts a meter around the steps of a `fit` that is about to begin, and takes it off again.

    A callback never sees a batch, but Keras makes the function that trains of
    `model.train_step`: another is made, of the step with the meter around it, and takes its place
    until `restore`. `model.train_step` itself stays what it is. Keras calls no callback where `fit`
    is left by an exception: one that a step raises restores as well, and what another one left
    there is put back by the next `fit`, before its first step.

    Args:
        model: The model, in `on_train_begin`.
        meter: What wraps a training step, and compiles it where that is asked for.
    """

    def __init__(self, model: keras.Model, meter: UnderflowMeter) -> None:
        self._model = model
        self._before = model.train_function
        self._is_called = False
        own, jit_compile = vars(model).get("train_step"), model.jit_compile
        # Keras compiles all that it makes of a step; of several replicas it has to.
        is_split = bool(jit_compile) and model.distribute_strategy.num_replicas_in_sync == 1
        model.train_step = meter.around(model.train_step, jit_compile=is_split)
        try:
            if is_split:
                model.jit_compile = False
            model.make_train_function(force=True)
        finally:
            model.jit_compile = jit_compile
            if own is None:
                del model.train_step
            else:
                model.train_step = own
        self._metered = model.train_function
        model.train_function = self._train

    def expect(self) -> None:
        """Says that the next call is one of the `fit` that is metered."""
        self._is_called = True

    def restore(self) -> None:
        """Puts back what trained before; safe to repeat."""
        if self._model.train_function == self._train:
            self._model.train_function = self._before

    def _train(self, iterator: Any) -> Any:
        if not self._is_called:
            # What `fit` was this for has been left by an exception, and another one has begun; or
            # it is `train_on_batch`, which is nobody's step.
            if isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
                self.restore()
            return self._before(iterator)
        self._is_called = False
        try:
            return self._metered(iterator)
        except _ENDS:
            raise
        except BaseException:
            self.restore()
            raise
