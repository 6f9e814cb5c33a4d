"""The custom loop: a tf.function over a GradientTape, several steps inside one call."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfamp.precision.moving_averages import KeptAverages
from tfamp.training import distribute


class CustomLoop:
    """Trains a compiled model without `fit`, step for step as `fit` would.

    The model is compiled so that loss, metrics and optimizer have one home; training itself is
    the dozen lines of `_step`. Under the strategy in whose scope the model was made, a step runs
    on every replica with its part of the batch.

    Args:
        model: A compiled model; `compile` chose the optimizer, XLA and the steps per execution.
        loss: The loss function of (labels, logits).
    """

    def __init__(self, model: keras.Model, loss: keras.losses.Loss) -> None:
        self.model = model
        self.loss = loss
        self._strategy = model.distribute_strategy
        with self._strategy.scope():
            self._mean_loss = keras.metrics.Mean(name="loss")
            self._accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
            model.optimizer.build(model.trainable_variables)
            model.optimizer.keeps_averages = True
        # AutoGraph would rewrite the optimizer's code too: it finds nothing and takes seconds.
        one_step = tf.autograph.experimental.do_not_convert(self._on_each_replica)
        self._one_step = tf.function(one_step, jit_compile=model.jit_compile)
        self._some_steps = tf.function(self._steps)

    def _on_each_replica(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        self._strategy.run(self._step, args=(images, labels))

    def _step(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """One step of one replica.

        Args:
            images: float32 [batch, height, width, channels].
            labels: float32 [batch, classes].
        """
        num_replicas = self._strategy.num_replicas_in_sync
        optimizer, variables = self.model.optimizer, self.model.trainable_variables
        averages = KeptAverages(self.model, optimizer) if optimizer.is_scaling else None
        averages_before = averages.before() if averages else []
        with tf.GradientTape() as tape:
            # A user's model may end in 16 bits; losses and metrics are float32.
            logits = tf.cast(self.model(images, training=True), tf.float32)
            # A Keras loss is divided by the replicas already: their gradients will be summed.
            loss = self.loss(labels, logits)
            if self.model.losses:
                extra = tf.add_n([tf.cast(extra, loss.dtype) for extra in self.model.losses])
                loss += extra / num_replicas
            scaled_loss = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, variables)
        optimizer.apply(gradients, variables)
        if averages:
            averages.after(averages_before)
        self._mean_loss.update_state(loss * num_replicas)
        self._accuracy.update_state(labels, logits)

    def _steps(self, iterator: tf.data.Iterator, count: int) -> dict[str, tf.Tensor]:
        if count == 1:
            # One step needs no loop in the graph.
            self._one_step(*next(iterator))
        else:
            for _ in tf.range(count):
                self._one_step(*next(iterator))
        return {"loss": self._mean_loss.result(), "accuracy": self._accuracy.result()}

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
            train: Endless batches of (images, labels).
            validation: All batches of the validation set; None evaluates nothing.
            epochs: Epochs to train.
            steps_per_epoch: Steps in each.
            callbacks: What to call.
        """
        if validation is not None and type(self.model).test_step is not keras.Model.test_step:
            # `evaluate` asks the compiled metrics too, which only `fit` builds by itself.
            self.model._symbolic_build(data_batch=validation.element_spec)
        iterator = iter(distribute.distributed(self._strategy, train))
        chunk = self.model.steps_per_execution
        self.model.stop_training = False
        callbacks.on_train_begin()
        epoch_logs: dict[str, float] = {}
        for epoch in range(epochs):
            self._mean_loss.reset_state()
            self._accuracy.reset_state()
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
