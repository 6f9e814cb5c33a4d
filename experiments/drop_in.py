"""Two lines make any Keras script a measured mixed-precision run.

    scripts/python.sh experiments/drop_in.py [RUN_DIRECTORY]

Nothing here but `tfamp.LossScaleOptimizer` and `tfamp.PrecisionTelemetry` comes from tfamp.
"""

import sys

import keras
import numpy as np

import tfamp

keras.mixed_precision.set_global_policy("mixed_float16")
model = keras.Sequential(
    [
        keras.Input((20,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1, dtype="float32"),
    ]
)
model.compile(
    optimizer=tfamp.LossScaleOptimizer(keras.optimizers.Adam(1e-3)),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

inputs = np.random.default_rng(0).normal(size=(2048, 20)).astype("float32")
targets = (inputs.sum(axis=1) > 0).astype("float32")
run_directory = sys.argv[1] if len(sys.argv) > 1 else "runs/drop_in"
model.fit(
    inputs,
    targets,
    epochs=3,
    validation_split=0.25,
    callbacks=[tfamp.PrecisionTelemetry(run_directory, batch_size=32)],
)
print(f"loss scale {model.optimizer.scale:g}, skipped {model.optimizer.skipped_total}")
print(f"rows in {run_directory}/metrics.jsonl; scripts/tensorboard.sh shows them")
