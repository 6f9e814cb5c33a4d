"""An operation with a gradient of its own, under a mixed policy.

    scripts/python.sh experiments/scenarios/custom_gradient.py

A function that needs float32 casts what it gets, forward and backward, and hands back the dtype
that it was given. The upstream gradient is scaled; a gradient function that is linear in it, as
every right one is, needs not know by how much.
"""

import keras
import tensorflow as tf

import tfamp

keras.config.set_dtype_policy("mixed_float16")
keras.utils.set_random_seed(0)


@tf.custom_gradient
def log1pexp(x):
    """log(1 + e^x), in float32 whatever comes: e^x overflows float16 at x = 11.1."""
    wide = tf.cast(x, tf.float32)
    exponential = tf.exp(wide)

    def gradient(upstream):
        slope = 1.0 - 1.0 / (1.0 + exponential)
        return tf.cast(tf.cast(upstream, tf.float32) * slope, x.dtype)

    return tf.cast(tf.math.log1p(exponential), x.dtype), gradient


model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(16, activation=log1pexp),
        keras.layers.Dense(1, dtype="float32"),
    ]
)
optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.001))
model.compile(optimizer, loss="mse", jit_compile=True)
inputs = 12.0 * tf.random.normal([256, 4])
history = model.fit(inputs, inputs[:, :1], epochs=5, verbose=0)
losses = history.history["loss"]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, skipped {optimizer.skipped_total}")
