"""Training on several workers: what `fit` needs of `tf.distribute`, and Keras lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfamp.precision import keras_internals


@contextlib.contextmanager
def multi_worker_keras() -> Iterator[None]:
    """Lets `fit` and `evaluate` run under MultiWorkerMirroredStrategy while it is open.

    Keras 3.12 to 3.15 fail there in two places, each of them helped here for this strategy alone:
    to build a model they ask a distributed batch for its shape, and of metrics that are scalars
    they take the mean over axis 0.

    >>> with strategy.scope():
    ...     model = make_model()
    ...     model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1)), loss="mse")
    >>> with multi_worker_keras():
    ...     model.fit(dataset, epochs=3, steps_per_epoch=100)
    """

    def build_from_local(
        build: Callable[..., None], model: Any, iterator: Any, data_batch: Any
    ) -> None:
        strategy = model.distribute_strategy
        if _is_multi_worker(strategy) and iterator is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0], next(batches)
                )
                break
            iterator = None
        build(model, iterator=iterator, data_batch=data_batch)

    def reduce_scalars(
        reduce: Callable[..., Any], values: Any, strategy: tf.distribute.Strategy, reduction: str
    ) -> Any:
        if _is_multi_worker(strategy) and reduction in ("auto", "mean"):
            return keras.tree.map_structure(
                lambda value: strategy.reduce("MEAN", value, axis=None), values
            )
        return reduce(values, strategy, reduction)

    with keras_internals.replaced_trainer_parts(build_from_local, reduce_scalars):
        yield


def _is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
