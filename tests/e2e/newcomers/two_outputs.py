"""One model, two outputs: what kind it is, and how old; two losses and other metrics."""

import keras
import numpy as np

import tfamp

keras.mixed_precision.set_global_policy("mixed_float16")

generator = np.random.default_rng(0)
features = generator.normal(size=(160, 6)).astype("float32")
kind = (features[:, 0] > 0).astype("int32") + (features[:, 1] > 0)
age = features[:, 2:3] * 3

inputs = keras.Input((6,))
hidden = keras.layers.Dense(16, activation="relu")(inputs)
outputs = {
    "kind": keras.layers.Dense(3, activation="softmax", dtype="float32", name="kind")(hidden),
    "age": keras.layers.Dense(1, dtype="float32", name="age")(hidden),
}
model = keras.Model(inputs, outputs)
model.compile(
    optimizer=tfamp.LossScaleOptimizer(keras.optimizers.RMSprop(0.01)),
    loss={"kind": "sparse_categorical_crossentropy", "age": "mse"},
    loss_weights={"kind": 1.0, "age": 0.1},
    metrics={"kind": ["accuracy"], "age": ["mae", keras.metrics.RootMeanSquaredError()]},
)


def batches():
    """A generator that does not know its length."""
    for start in range(0, 128, 16):
        stop = start + 16
        yield features[start:stop], {"kind": kind[start:stop], "age": age[start:stop]}


telemetry = tfamp.PrecisionTelemetry("runs/two_outputs", batch_size=16, log_every=3)
validation = (features[128:], {"kind": kind[128:], "age": age[128:]})
for _ in range(2):
    model.fit(
        batches(),
        steps_per_epoch=8,
        shuffle=False,
        validation_data=validation,
        callbacks=[telemetry],
        verbose=2,
    )
