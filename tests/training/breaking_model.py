"""Models one of whose gradients is not finite from the fifth step on, whatever the scale."""

import keras
import tensorflow as tf

HEALTHY_STEPS = 4


class Breaks(keras.layers.Layer):
    """Adds a weight whose gradient turns into `bad`; its neighbours' stay finite."""

    def __init__(self, bad, **kwargs):
        super().__init__(**kwargs)
        self.bad = bad

    def build(self, input_shape):
        self.shift = self.add_weight(shape=(input_shape[-1],), name="shift", initializer="zeros")
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, name="calls",
                                     initializer="zeros")  # fmt: skip

    def call(self, inputs, training=False):
        if training:
            self.calls.assign_add(1)
        is_broken = self.calls.value > HEALTHY_STEPS

        @tf.custom_gradient
        def shift(value):
            def gradient(upstream):
                return tf.where(is_broken, tf.cast(self.bad, upstream.dtype), upstream)

            return tf.identity(value), gradient

        return inputs + shift(tf.convert_to_tensor(self.shift))


def _model(input_shape, num_classes, bad):
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = Breaks(bad, name="breaks")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="head")(x))


def with_inf(input_shape, num_classes):
    return _model(input_shape, num_classes, float("inf"))


def with_nan(input_shape, num_classes):
    return _model(input_shape, num_classes, float("nan"))
