"""A loop without fit: tf.function, GradientTape, and validation after each epoch."""

import keras
import numpy as np
import tensorflow as tf

import tfamp

keras.mixed_precision.set_global_policy("mixed_float16")

inputs = np.random.default_rng(0).normal(size=(160, 5)).astype("float32")
targets = (inputs.sum(axis=1, keepdims=True) > 0).astype("float32")
train = tf.data.Dataset.from_tensor_slices((inputs[:128], targets[:128])).shuffle(128).batch(16)
validation = tf.constant(inputs[128:]), tf.constant(targets[128:])

model = keras.Sequential(
    [
        keras.Input((5,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(1, dtype="float32"),
    ]
)
loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)
optimizer = tfamp.LossScaleOptimizer(keras.optimizers.Adam(0.02))
optimizer.build(model.trainable_variables)


@tf.function
def train_step(x, y):
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, training=True))
        scaled_loss = optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled_loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


@tf.function
def evaluate(x, y):
    logits = model(x)
    return loss_fn(y, logits), tf.reduce_mean(tf.cast((logits > 0) == (y > 0), tf.float32))


with tfamp.telemetry("runs/by_hand", model=model, optimizer=optimizer, batch_size=16) as t:
    for epoch in range(3):
        for x, y in train:
            loss = train_step(x, y)
            t.step(loss)
        val_loss, val_accuracy = evaluate(*validation)
        t.epoch(validation_loss=val_loss, validation_accuracy=val_accuracy)
        print(f"epoch {epoch + 1}: loss {float(loss):.3f}, accuracy {float(val_accuracy):.2f}")
print(f"scale {optimizer.scale:g}, skipped {optimizer.skipped_total}")
