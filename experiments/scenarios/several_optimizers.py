"""Several models, losses and optimizers.

    scripts/python.sh experiments/scenarios/several_optimizers.py

Each optimizer scales the losses whose gradients it applies: one wrapper each, so that an overflow
in one model makes that one skip alone. A loss that feeds both is scaled once for each. (torch's
GradScaler is one object for all; its scale then falls for both when either overflows.)
"""

import keras
import tensorflow as tf

import tfamp

keras.config.set_dtype_policy("mixed_float16")
keras.utils.set_random_seed(0)


def network(name):
    layers = [keras.Input((4,)), keras.layers.Dense(1, dtype="float32")]
    return keras.Sequential(layers, name=name)


first, second = network("first"), network("second")
first_optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1))
second_optimizer = tfamp.LossScaleOptimizer(keras.optimizers.Adam(0.1), initial_scale=2.0**10)
for model, optimizer in ((first, first_optimizer), (second, second_optimizer)):
    optimizer.build(model.trainable_variables)


@tf.function(jit_compile=True)
def step(x, y, poison):
    # Two optimizers want gradients of two scaled losses: the tape is asked twice.
    with tf.GradientTape(persistent=True) as tape:
        a, b = first(x, training=True), second(x, training=True)
        shared = tf.reduce_mean((a + b - y) ** 2)
        first_loss = first_optimizer.scale_loss(shared + tf.reduce_mean(a**2))
        second_loss = second_optimizer.scale_loss(shared + poison * tf.reduce_mean(b**2))
    first_gradients = tape.gradient(first_loss, first.trainable_variables)
    second_gradients = tape.gradient(second_loss, second.trainable_variables)
    first_optimizer.apply(first_gradients, first.trainable_variables)
    second_optimizer.apply(second_gradients, second.trainable_variables)


x, y = tf.random.normal([32, 4]), tf.random.normal([32, 1])
for i in range(6):
    step(x, y, tf.constant(1e37 if i == 2 else 0.1))
print(f"first:  scale {first_optimizer.scale:g}, skipped {first_optimizer.skipped_total}")
print(f"second: scale {second_optimizer.scale:g}, skipped {second_optimizer.skipped_total}")
