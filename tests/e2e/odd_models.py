"""Models that make a fault, or show an effect, on purpose."""

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


def overflows(input_shape, num_classes):
    """Infinite in float16 at every step, whatever the loss scale."""
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
