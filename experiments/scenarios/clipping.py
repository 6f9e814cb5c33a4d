"""Clip the unscaled gradient: in the optimizer, or by hand.

    scripts/python.sh experiments/scenarios/clipping.py

The gradient that a tape gives belongs to the scaled loss. An optimizer argument clips after
unscaling, so it needs no care. To look at the gradient yourself, `unscale` it, and tell `apply`
that it gets unscaled ones.
"""

import keras
import tensorflow as tf

import tfamp

keras.config.set_dtype_policy("mixed_float16")
keras.utils.set_random_seed(0)
inputs, targets = tf.random.normal([64, 8]), tf.random.normal([64, 1])
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, dtype="float32")])
start = model.get_weights()

# The usual way.
model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1, global_clipnorm=0.5)), loss="mse")
model.fit(inputs, targets, batch_size=16, shuffle=False, verbose=0)
by_argument = model.get_weights()

# By hand.
model.set_weights(start)
optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1))
optimizer.build(model.trainable_variables)


@tf.function(jit_compile=True)
def step(x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        scaled_loss = optimizer.scale_loss(loss)
    gradients = optimizer.unscale(tape.gradient(scaled_loss, model.trainable_variables))
    # An overflow is a skipped step, whatever is made of it here.
    clipped, norm = tf.clip_by_global_norm(gradients, 0.5)
    optimizer.apply(clipped, model.trainable_variables, is_unscaled=True)
    return norm


for x, y in tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(16):
    norm = step(x, y)
by_hand = model.get_weights()

difference = max(float(abs(a - b).max()) for a, b in zip(by_argument, by_hand, strict=True))
print(f"last norm before clipping {norm:.3f}, difference of the two ways {difference:.1e}")
