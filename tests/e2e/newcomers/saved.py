"""Trained, saved, loaded in another process, and trained on: run it twice."""

import os

import keras
import numpy as np

import tfamp

inputs = np.random.default_rng(0).normal(size=(128, 6)).astype("float32")
targets = inputs[:, :1] * 2

if not os.path.exists("saved.keras"):
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(tfamp.LossScaleOptimizer(keras.optimizers.Adam(0.01)), loss="mse")
    folder = "runs/saved"
else:
    model = keras.models.load_model("saved.keras")
    print("loaded: scale", model.optimizer.scale, "after", model.optimizer.steps_attempted, "steps")
    folder = "runs/trained_on"

model.fit(
    inputs,
    targets,
    batch_size=16,
    epochs=2,
    callbacks=[tfamp.PrecisionTelemetry(folder, batch_size=16)],
    verbose=2,
)
model.save("saved.keras")
