"""Models that make a fault, or show an effect, on purpose."""

import os
import sys

import keras
import tensorflow as tf


def linear(input_shape, num_classes):
    """One matrix."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


def biased(input_shape, num_classes):
    """Everything that may decay begins at a value that decay would move."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=4, bias_initializer="ones", name="conv")(inputs)
    x = keras.layers.BatchNormalization(beta_initializer="ones", name="norm")(x)
    x = keras.layers.LayerNormalization(beta_initializer="ones", name="layer_norm")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(
        inputs,
        keras.layers.Dense(num_classes, bias_initializer="ones", dtype="float32", name="head")(x),
    )


class InfiniteGradient(keras.layers.Layer):
    """Passes its input on; the gradient that comes back is infinite, the first `times` times."""

    def __init__(self, times, **kwargs):
        super().__init__(**kwargs)
        self.times = times

    def build(self, input_shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False)

    def call(self, inputs, training=False):
        if training:
            self.calls.assign_add(1)
        is_bad = self.calls.value <= self.times

        @tf.custom_gradient
        def passed_on(value):
            def gradient(upstream):
                return tf.where(is_bad, tf.cast(float("inf"), upstream.dtype), upstream)

            return tf.identity(value), gradient

        return passed_on(inputs)


def _overflowing(input_shape, num_classes, times):
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=4, name="conv")(inputs)
    x = InfiniteGradient(times, name="infinite")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


def overflows(input_shape, num_classes):
    """A finite loss and an infinite gradient at every step, whatever the loss scale."""
    return _overflowing(input_shape, num_classes, 10**6)


def overflows_eight_times(input_shape, num_classes):
    """The same in the first eight steps; healthy then."""
    return _overflowing(input_shape, num_classes, 8)


def overflows_forward(input_shape, num_classes):
    """A loss that is NaN in float16 at every step, before it is scaled."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1e30, name="huge")(inputs)
    x = keras.layers.Conv2D(4, 3, strides=4, name="conv")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


def float16_in_the_middle(input_shape, num_classes):
    """One float16 layer, whatever the policy."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=4, dtype="mixed_float16", name="conv")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


class FailsAtStep3(keras.layers.Layer):
    """Raises while training runs, as a bug in a user's layer would."""

    def build(self, input_shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False)

    def call(self, inputs, training=False):
        if not training:
            return inputs
        with tf.control_dependencies(
            [tf.debugging.assert_less(self.calls.assign_add(1), 3, message="planted fault")]
        ):
            return tf.identity(inputs)


def fails_in_training(input_shape, num_classes):
    """Two good steps, then an error."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(FailsAtStep3(name="faulty")(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


def raises_key_error(input_shape, num_classes):
    """The user's function itself has a bug."""
    return {}["width"]


def frozen(input_shape, num_classes):
    """Nothing to train: the whole model is frozen."""
    model = linear(input_shape, num_classes)
    model.trainable = False
    return model


def frozen_layers(input_shape, num_classes):
    """Nothing to train: each layer is frozen."""
    model = linear(input_shape, num_classes)
    for layer in model.layers:
        layer.trainable = False
    return model


def whole_numbers(input_shape, num_classes):
    """Logits without a gradient."""
    model = linear(input_shape, num_classes)
    return keras.Model(model.inputs, keras.ops.cast(model.outputs[0], "int32"))


def exits(input_shape, num_classes):
    """Ends the process, as a script would."""
    sys.exit(3)


class ExitsInTraining(keras.layers.Layer):
    """Ends the process once training is traced."""

    def call(self, inputs, training=False):
        if training:
            sys.exit("no more")
        return inputs


def exits_in_training(input_shape, num_classes):
    """Builds well."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(ExitsInTraining()(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


class AddsAThousand(keras.Model):
    """A train_step as Keras's guide writes it, whose loss nobody can mistake."""

    def scaled(self, loss):
        return loss

    def train_step(self, data):
        images, labels = data
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(y=labels, y_pred=logits) + 1000.0
            to_derive = self.scaled(loss)
        gradients = tape.gradient(to_derive, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(labels, logits)
        return {metric.name: metric.result() for metric in self.metrics}


class AddsAThousandScaled(AddsAThousand):
    """The same, with the line that loss scaling needs."""

    def scaled(self, loss):
        return self.optimizer.scale_loss(loss)


class AddsInComputeLoss(keras.Model):
    """Keras's own train_step around a loss of its own."""

    def compute_loss(self, *arguments, **keywords):
        return super().compute_loss(*arguments, **keywords) + 1000.0


class HasItsOwnOptimizer(keras.Model):
    """Never touches self.optimizer."""

    def train_step(self, data):
        return {"loss": self.compute_loss(y=data[1], y_pred=self(data[0], training=True))}


class ReportsNoAccuracy(keras.Model):
    """A test_step that says the loss only."""

    def test_step(self, data):
        return {"loss": self.compute_loss(y=data[1], y_pred=self(data[0])) + 1000.0}


def _dense(model_class, input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs)
    return model_class(inputs, keras.layers.Dense(num_classes, name="logits")(x))


def sixteen_bit_logits(input_shape, num_classes):
    """No float32 at the end."""
    return _dense(keras.Model, input_shape, num_classes)


def adds_a_thousand(input_shape, num_classes):
    """Has its own train_step, and nothing is scaled."""
    return _dense(AddsAThousand, input_shape, num_classes)


def adds_a_thousand_scaled(input_shape, num_classes):
    """Has its own train_step, which scales."""
    return _dense(AddsAThousandScaled, input_shape, num_classes)


def adds_in_compute_loss(input_shape, num_classes):
    """Has its own compute_loss."""
    return _dense(AddsInComputeLoss, input_shape, num_classes)


def has_its_own_optimizer(input_shape, num_classes):
    """Has its own train_step, which does not update."""
    return _dense(HasItsOwnOptimizer, input_shape, num_classes)


def reports_no_accuracy(input_shape, num_classes):
    """Has its own test_step."""
    return _dense(ReportsNoAccuracy, input_shape, num_classes)


class Waits(keras.layers.Layer):
    """Holds each training step up, outside Python's main thread, until somebody lets it go."""

    def call(self, inputs, training=False):
        if not training:
            return inputs

        def wait(images):
            with open(os.path.join(os.environ["WAITS_IN"], "reached"), "w") as reached:
                reached.write("here")
            with open(os.path.join(os.environ["WAITS_IN"], "go")) as go:
                go.read()
            return images

        waited = tf.numpy_function(wait, [inputs], inputs.dtype)
        return tf.ensure_shape(waited, inputs.shape)


def waits(input_shape, num_classes):
    """Each step opens the pipe `reached`, and ends when `go` was written to."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(Waits()(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


class NanAt(keras.layers.Layer):
    """Passes on NaN at some steps of training, from one to another."""

    def __init__(self, first, last, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = first, last

    def build(self, input_shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False)

    def call(self, inputs, training=False):
        if not training:
            return inputs
        self.calls.assign_add(1)
        is_bad = (self.calls.value >= self.first) & (self.calls.value <= self.last)
        return tf.where(is_bad, tf.cast(float("nan"), inputs.dtype), inputs)


def _nan_at(first, last, input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(NanAt(first, last, name="nan_at")(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x))


def always_nan(input_shape, num_classes):
    """No finite loss at all."""
    return _nan_at(1, 10**6, input_shape, num_classes)


def nan_at_step_3(input_shape, num_classes):
    """One corrupt batch."""
    return _nan_at(3, 3, input_shape, num_classes)


def all_float32(input_shape, num_classes):
    """Its own policy, whatever the run's."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten(dtype="float32")(inputs)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))
