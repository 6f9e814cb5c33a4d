"""A model with a train_step of its own, whose metrics are its own too."""

import keras
import numpy as np
import tensorflow as tf

import tfamp

keras.mixed_precision.set_global_policy("mixed_float16")


class Autoencoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = keras.layers.Dense(3, activation="relu")
        self.decoder = keras.layers.Dense(8, dtype="float32")
        self.error = keras.metrics.Mean(name="error")

    def call(self, x):
        return self.decoder(self.encoder(x))

    @property
    def metrics(self):
        return [self.error]

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - x))
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.error.update_state(loss)
        return {"error": self.error.result(), "last": loss}

    def test_step(self, x):
        self.error.update_state(tf.reduce_mean(tf.square(self(x) - x)))
        return {"error": self.error.result()}


data = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
model = Autoencoder()
model.compile(tfamp.LossScaleOptimizer(keras.optimizers.Adam(0.01)), jit_compile=True)
telemetry = tfamp.PrecisionTelemetry("runs/own_step", log_every=4)
model.fit(data, batch_size=16, epochs=2, validation_data=(data,), callbacks=[telemetry], verbose=2)

# Smaller steps for the rest.
model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.001)), jit_compile=True)
model.fit(data, batch_size=16, epochs=1, callbacks=[telemetry], verbose=2)
