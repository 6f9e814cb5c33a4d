"""The custom loop: epochs of steps without `fit`, several steps inside one call of the device."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.precision.moving_averages import keeping_averages
from tfamp.precision.underflow import UnderflowMeter
from tfamp.training.step import Step


class CustomLoop:
    """Trains a compiled model without `fit`, step for step as `fit` would.

    Under the strategy in whose scope the model was made, a step runs on every replica with its
    part of the batch.

    Args:
        model: A compiled model with an optimizer of tfamp's; `compile` chose the optimizer, XLA
            and the steps per execution.
        underflow: An underflow meter to place around each step; `begin` of it is called by the
            callback that has it.
    """

    def __init__(self, model: keras.Model, underflow: UnderflowMeter | None = None) -> None:
        self.model = model
        self._strategy = model.distribute_strategy
        self._step = keeping_averages(Step(model), model)
        jit_compile = model.jit_compile
        if underflow:
            # Both are compiled apart; not so with several replicas, which are one function.
            is_split = jit_compile and self._strategy.num_replicas_in_sync == 1
            self._step = underflow.around(self._step, jit_compile=is_split)
            jit_compile = jit_compile and not is_split
        # AutoGraph would rewrite the optimizer's code too: it finds nothing and takes seconds.
        one_step = tf.autograph.experimental.do_not_convert(self._on_each_replica)
        self._one_step = tf.function(one_step, jit_compile=jit_compile)
        self._some_steps = tf.function(self._steps)

    def _on_each_replica(self, batch: tuple[tf.Tensor, ...]) -> None:
        self._strategy.run(self._step, args=(batch,))

    def _steps(self, iterator: tf.data.Iterator, count: int) -> dict[str, tf.Tensor]:
        if count == 1:
            # One step needs no loop in the graph.
            self._one_step(next(iterator))
        else:
            for _ in tf.range(count):
                self._one_step(next(iterator))
        # Here, where the replicas' shares come together.
        return self.model.get_metrics_result()

    def run(
        self,
        train: tf.data.Dataset,
        validation: tf.data.Dataset | None,
        epochs: int,
        steps_per_epoch: int,
        callbacks: keras.callbacks.CallbackList,
    ) -> None:
        """Trains and evaluates, calling the callbacks where `fit` would.

        Args:
            train: Endless batches, as `Step` takes them.
            validation: All batches of the validation set; None evaluates nothing.
            epochs: Epochs to train.
            steps_per_epoch: Steps in each.
            callbacks: What to call.
        """
        self._build(train)
        iterator = iter(self._strategy.experimental_distribute_dataset(train))
        chunk = self.model.steps_per_execution
        self.model.stop_training = False
        callbacks.on_train_begin()
        epoch_logs: dict[str, float] = {}
        for epoch in range(epochs):
            self.model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            logs: dict[str, tf.Tensor] = {}
            for begin in range(0, steps_per_epoch, chunk):
                count = min(chunk, steps_per_epoch - begin)
                callbacks.on_train_batch_begin(begin)
                logs = self._some_steps(iterator, count)
                callbacks.on_train_batch_end(begin + count - 1, logs)
                if self.model.stop_training:
                    break
            measured: dict[str, float] = {}
            if validation is not None:
                measured = self.model.evaluate(
                    validation, callbacks=callbacks, verbose=0, return_dict=True
                )
            epoch_logs = {name: float(value) for name, value in logs.items()}
            epoch_logs |= {f"val_{name}": value for name, value in measured.items()}
            callbacks.on_epoch_end(epoch, epoch_logs)
            if self.model.stop_training:
                break
        self.model.optimizer.finalize_variable_values(self.model.trainable_weights)
        callbacks.on_train_end(epoch_logs)

    def _build(self, data: tf.data.Dataset) -> None:
        # All variables before the first step: one that makes some would be traced twice.
        with self._strategy.scope():
            keras_internals.build_for(self.model, data.element_spec)
            self.model.optimizer.build(self.model.trainable_variables)
