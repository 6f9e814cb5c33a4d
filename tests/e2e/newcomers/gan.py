"""A GAN with a train_step of its own and an optimizer for each half."""

import keras
import numpy as np
import tensorflow as tf

import tfamp

keras.mixed_precision.set_global_policy("mixed_float16")


def network(sizes):
    hidden = [keras.layers.Dense(size, activation="leaky_relu") for size in sizes[1:-1]]
    return keras.Sequential(
        [keras.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1], dtype="float32")]
    )


class GAN(keras.Model):
    def __init__(self):
        super().__init__()
        self.generator = network([4, 8, 2])
        self.discriminator = network([2, 8, 1])

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer
        self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real):
        noise = tf.random.normal((tf.shape(real)[0], 4))
        ones, zeros = tf.ones((tf.shape(real)[0], 1)), tf.zeros((tf.shape(real)[0], 1))

        with tf.GradientTape() as tape:
            fake = self.generator(noise)
            real_loss = self.loss_fn(ones, self.discriminator(real))
            d_loss = real_loss + self.loss_fn(zeros, self.discriminator(fake))
            scaled_loss = self.d_optimizer.scale_loss(d_loss)
        variables = self.discriminator.trainable_weights
        self.d_optimizer.apply(tape.gradient(scaled_loss, variables), variables)

        with tf.GradientTape() as tape:
            g_loss = self.loss_fn(ones, self.discriminator(self.generator(noise)))
            scaled_loss = self.g_optimizer.scale_loss(g_loss)
        variables = self.generator.trainable_weights
        self.g_optimizer.apply(tape.gradient(scaled_loss, variables), variables)
        return {"d_loss": d_loss, "g_loss": g_loss}


gan = GAN()
gan.compile(
    d_optimizer=tfamp.LossScaleOptimizer(keras.optimizers.Adam(1e-3)),
    g_optimizer=tfamp.LossScaleOptimizer(keras.optimizers.Adam(1e-3), initial_scale=2.0**12),
)
points = np.random.default_rng(0).normal(3.0, 0.5, size=(128, 2)).astype("float32")
gan.fit(
    points,
    batch_size=16,
    epochs=2,
    callbacks=[tfamp.PrecisionTelemetry("runs/gan", batch_size=16)],
    verbose=2,
)
