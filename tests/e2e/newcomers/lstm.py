"""A text classifier: words to Embedding to LSTM, compiled the short way."""

import keras
import numpy as np

import tfamp

keras.mixed_precision.set_global_policy("mixed_float16")

good = [
    "a fine and lovely film",
    "lovely acting and a fine plot",
    "fine film",
    "what a lovely plot",
]
bad = ["a dull and awful film", "awful acting and a dull plot", "dull film", "what an awful plot"]
texts = np.array((good + bad) * 8)
labels = np.array(([1] * 4 + [0] * 4) * 8)
order = np.random.default_rng(0).permutation(len(texts))
texts, labels = texts[order], labels[order]

vocabulary = sorted({word for text in texts for word in text.split()})
number = {word: i + 1 for i, word in enumerate(vocabulary)}
words = np.zeros((len(texts), 8), "int32")
for row, text in zip(words, texts, strict=True):
    row[: len(text.split())] = [number[word] for word in text.split()]

inputs = keras.Input((8,), dtype="int32")
x = keras.layers.Embedding(len(vocabulary) + 1, 8)(inputs)
x = keras.layers.LSTM(8)(x)
outputs = keras.layers.Dense(1, activation="sigmoid", dtype="float32")(x)
model = keras.Model(inputs, outputs)

# Under mixed_float16 Keras wraps this Adam in a LossScaleOptimizer of its own.
model.compile("adam", loss="binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
model.fit(
    words,
    labels,
    batch_size=8,
    epochs=2,
    validation_split=0.25,
    callbacks=[tfamp.PrecisionTelemetry("runs/lstm", log_every=4)],
    verbose=2,
)
