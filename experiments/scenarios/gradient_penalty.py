"""Penalise the norm of a gradient: a gradient inside the loss.

    scripts/python.sh experiments/scenarios/gradient_penalty.py

The inner gradient passes through float16 layers too, so its loss is scaled as well, and divided by
the scale in float32 before it enters the penalty. The penalty then joins the loss, and the sum is
scaled once for the outer gradient.
"""

import keras
import tensorflow as tf

import tfamp

keras.config.set_dtype_policy("mixed_float16")
keras.utils.set_random_seed(0)
inputs, targets = tf.random.normal([64, 8]), tf.random.normal([64, 1])
model = keras.Sequential(
    [
        keras.Input((8,)),
        keras.layers.Dense(16, activation="tanh"),
        keras.layers.Dense(1, dtype="float32"),
    ]
)
optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=2.0**10)
optimizer.build(model.trainable_variables)


@tf.function
def step(x, y):
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            scaled = optimizer.scaled(loss)  # `scale_loss` would note it as the step's loss.
        input_gradient = inner.gradient(scaled, x) / optimizer.dynamic_scale
        penalty = tf.reduce_sum(input_gradient**2)
        scaled_loss = optimizer.scale_loss(loss + 10.0 * penalty)
    gradients = outer.gradient(scaled_loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return loss, penalty


first = [float(value) for value in step(inputs, targets)]
for _ in range(30):
    last = [float(value) for value in step(inputs, targets)]
print(f"penalty {first[1]:.4f} -> {last[1]:.4f}, skipped {optimizer.skipped_total}")
