"""Training on several workers: what `fit` needs of `tf.distribute`, and Keras lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer


@contextlib.contextmanager
def multi_worker_keras() -> Iterator[None]:
    """Lets `fit` and `evaluate` run under MultiWorkerMirroredStrategy while it is open.

    Keras 3.12 to 3.15 fail there in two places, each of them helped here for this strategy alone:
    `_maybe_symbolic_build` asks a distributed batch for its shape, and `reduce_per_replica`
    takes the mean of scalar metrics over their axis 0.

    >>> with strategy.scope():
    ...     model = make_model()
    ...     model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1)), loss="mse")
    >>> with multi_worker_keras():
    ...     model.fit(dataset, epochs=3, steps_per_epoch=100)
    """
    trainer = keras_trainer.TensorFlowTrainer
    build, reduce = trainer._maybe_symbolic_build, keras_trainer.reduce_per_replica

    def build_from_local(model: Any, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = model.distribute_strategy
        if _is_multi_worker(strategy) and iterator is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0], next(batches)
                )
                break
            iterator = None
        build(model, iterator=iterator, data_batch=data_batch)

    def reduce_scalars(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
        if _is_multi_worker(strategy) and reduction in ("auto", "mean"):
            return keras.tree.map_structure(
                lambda value: strategy.reduce("MEAN", value, axis=None), values
            )
        return reduce(values, strategy, reduction)

    trainer._maybe_symbolic_build = build_from_local
    keras_trainer.reduce_per_replica = reduce_scalars
    try:
        yield
    finally:
        trainer._maybe_symbolic_build = build
        keras_trainer.reduce_per_replica = reduce


def _is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
