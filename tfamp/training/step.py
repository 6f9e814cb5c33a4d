"""One training step, in the order in which one thinks of it: loss, gradients, apply."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.precision.gradients import Gradient
from tfamp.training.own_step import own_methods

Loss = Callable[..., tf.Tensor]


class Differentiated(NamedTuple):
    """What the way forward and the way back have found; no weight has moved.

    Attributes:
        loss: Scalar, as `Step.loss` returns it, not scaled.
        outputs: What the model returned.
        gradients: One per trainable variable, or None where the loss does not depend on it: of the
            loss multiplied by what `scale` made of it.
    """

    loss: tf.Tensor
    outputs: Any
    gradients: list[Gradient]


class Step:
    """One training step of a Keras model, as `fit` takes it, in parts that can be had alone.

    >>> step = Step(model)
    >>> loss, outputs = step.loss(batch)
    >>> loss, outputs, gradients = step.gradients(batch)
    >>> step.apply(gradients)

    Called, it takes the step as a whole: the loss scaled by the optimizer, the gradients applied,
    the metrics updated. It then is what `model.train_step` is to `fit`, and can be wrapped as it.

    The model may be functional, Sequential or subclassed, with any structure of inputs and outputs.
    A batch is what `fit` takes from a dataset: inputs, (inputs, targets), or (inputs, targets,
    sample_weight). Nothing here keeps state: all of it is the model's and the optimizer's. Under
    the strategy in whose scope the model was made a step is taken on each replica, in
    `strategy.run`.

    Args:
        model: The model. It must be compiled for all but `loss` and `gradients` with a `loss`.
        loss: A function of (targets, outputs, sample_weight), where it is not to be the loss that
            the model was compiled with; `model.losses` are added.
    """

    def __init__(self, model: keras.Model, loss: Loss | None = None) -> None:
        self.model = model
        self._loss = loss

    def __call__(self, batch: Any) -> dict[str, tf.Tensor]:
        """Takes the step; returns the metrics since they were last reset."""
        found = self.gradients(batch, self.model.optimizer.scale_loss)
        self.apply(found.gradients)
        return self.metrics(batch, found)

    def loss(self, batch: Any, training: bool = True) -> tuple[tf.Tensor, Any]:
        """Goes forward.

        Args:
            batch: A batch.
            training: Whether dropout drops and BatchNormalization normalises by the batch.

        Returns:
            loss: Scalar, unscaled: the mean over the batch, and `model.losses`. On one of several
                replicas, its share of that.
            outputs: What the model returned.
        """
        outputs = self.outputs(batch, training)
        return self.loss_of(batch, outputs, training), outputs

    def outputs(self, batch: Any, training: bool = True) -> Any:
        """What the model returns for a batch; arguments as for `loss`."""
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        # As in `fit`, where a model whose call takes no `training` has no dropout.
        return self.model(inputs, **_if_taken(self.model.call, training=training))

    def loss_of(self, batch: Any, outputs: Any, training: bool = True) -> tf.Tensor:
        """The loss of what the model has just returned for a batch; as `loss`."""
        inputs, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if self._loss is None and own_methods(self.model, ["compute_loss"]):
            own = self.model.compute_loss
            keywords = _if_taken(own, training=training)
            return own(inputs, targets, outputs, sample_weight, **keywords)
        compiled = self._loss or keras_internals.compiled_loss(self.model)
        # Compiled without a loss, a model may have added all that there is itself.
        loss = tf.zeros([]) if compiled is None else compiled(targets, outputs, sample_weight)
        return self._with_models_own(loss)

    def gradients(
        self,
        batch: Any,
        scale: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
        training: bool = True,
    ) -> Differentiated:
        """Goes forward and back, and moves no weight.

        Args:
            batch: A batch.
            scale: What to make of the loss before it is differentiated: `optimizer.scale_loss`
                where the gradients will be applied. They remain scaled.
            training: As for `loss`.
        """
        with tf.GradientTape() as tape:
            loss, outputs = self.loss(batch, training)
            scaled = scale(loss)
        return Differentiated(loss, outputs, tape.gradient(scaled, self.model.trainable_variables))

    def apply(self, gradients: list[Gradient]) -> None:
        """Has the optimizer update the weights.

        Args:
            gradients: As `gradients` returns them, of a loss that the optimizer has scaled.
        """
        self.model.optimizer.apply(gradients, self.model.trainable_variables)

    def metrics(self, batch: Any, found: Differentiated) -> dict[str, tf.Tensor]:
        """Takes the step into the metrics.

        Returns:
            Each metric over the steps since the model's metrics were last reset, by its name.
        """
        inputs, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        num_examples = tf.shape(keras.tree.flatten(inputs)[0])[0]
        mean_loss = keras_internals.mean_loss(self.model)
        mean_loss.update_state(found.loss * num_replicas, sample_weight=num_examples)
        return self.model.compute_metrics(inputs, targets, found.outputs, sample_weight)

    def _with_models_own(self, loss: tf.Tensor) -> tf.Tensor:
        # Regularizers and what layers add are of their layer's dtype, 16 bits perhaps, in which no
        # sum should be taken; Keras's own step refuses to add them to a float32 loss.
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        added = [tf.reduce_sum(tf.cast(each, loss.dtype)) for each in self.model.losses]
        return tf.reduce_sum([loss, *(each / num_replicas for each in added)])


def _if_taken(function: Callable[..., Any], **keywords: Any) -> dict[str, Any]:
    taken = inspect.signature(function).parameters
    return {name: value for name, value in keywords.items() if name in taken}
