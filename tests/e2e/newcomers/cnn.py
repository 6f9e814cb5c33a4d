"""An image classifier with BatchNormalization and augmentation, on made-up pictures."""

import keras
import numpy as np

import tfamp

keras.mixed_precision.set_global_policy("mixed_float16")
keras.utils.set_random_seed(1)

# Class 1 is brighter on the left, class 0 on the right.
generator = np.random.default_rng(0)
labels = generator.integers(0, 2, 256)
images = generator.uniform(0, 1, (256, 12, 12, 1)).astype("float32")
images[labels == 1, :, :6] += 0.5
images[labels == 0, :, 6:] += 0.5

model = keras.Sequential(
    [
        keras.Input((12, 12, 1)),
        keras.layers.RandomTranslation(0.1, 0.0),
        keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(2),
        keras.layers.Activation("softmax", dtype="float32"),
    ]
)
model.compile(
    optimizer=tfamp.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
history = model.fit(
    images[:192],
    labels[:192],
    batch_size=32,
    epochs=4,
    validation_data=(images[192:], labels[192:]),
    callbacks=[
        tfamp.PrecisionTelemetry("runs/cnn", batch_size=32),
        keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(patience=1),
    ],
    verbose=2,
)
print("best accuracy", max(history.history["val_accuracy"]))
