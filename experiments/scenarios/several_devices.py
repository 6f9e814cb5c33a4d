"""Several devices in one process: MirroredStrategy.

    scripts/python.sh experiments/scenarios/several_devices.py

Two logical CPUs stand in for two GPUs; with GPUs, leave the first statement out. Model and
optimizer are made in the scope. The gradients are summed over the replicas before they are
checked, so an overflow on any one makes all skip, and all keep equal weights.
"""

import keras
import numpy as np
import tensorflow as tf

import tfamp

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
keras.config.set_dtype_policy("mixed_float16")
keras.utils.set_random_seed(0)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
inputs = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
targets = inputs[:, :1].copy()
inputs[28] = np.inf  # In the second batch of 16: it is the second replica that overflows.

with strategy.scope():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, dtype="float32")])
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    # XLA does not work with two CPUs.
    model.compile(optimizer, loss="mse", jit_compile=False)
model.fit(inputs, targets, batch_size=16, shuffle=False, verbose=0)

weights = model.get_weights()
print(f"applied {optimizer.steps_applied}, skipped {optimizer.skipped_total}", end="; ")
print(f"weights finite: {all(np.isfinite(w).all() for w in weights)}")
