"""Accumulate gradients over several microbatches, so that a large batch fits.

    scripts/python.sh experiments/scenarios/accumulation.py

Ask the inner optimizer for it. The scaled gradients are summed in float32 and checked once, at the
end of the group, so the scale is one number for the whole group; an overflow in any microbatch
discards its group, and the next one starts clean. `iterations`, schedules and the scale count
updates, not microbatches.
"""

import keras
import numpy as np

import tfamp

keras.config.set_dtype_policy("mixed_float16")
inputs = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
targets = inputs[:, :1].copy()
targets[20] = 1e9  # In the third microbatch of 8: a finite loss, and too much for float16.

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [keras.Input((8,)), keras.layers.Dense(1), keras.layers.Activation("linear", dtype="float32")]
)
inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
optimizer = tfamp.LossScaleOptimizer(inner, initial_scale=1024)
model.compile(optimizer, loss="mse")
model.fit(inputs, targets, batch_size=8, shuffle=False, verbose=0)

_, rows = optimizer.history()
for row in range(8):
    what = "update" if rows["is_update"][row] else "sum"
    print(f"microbatch {row + 1}: {what}, scale {rows['scale'][row]:g}")
print(f"updates: {optimizer.steps_applied} applied, {optimizer.skipped_total} skipped")
