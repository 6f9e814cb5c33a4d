"""What the tests of telemetry in a user's script share: data, models, and reading a run back."""

import json

import keras
import numpy as np

import tfamp
from tfamp.run import records

INPUTS = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
TARGETS = (INPUTS[:, :1] > 0).astype("float32")


def tiny_model():
    """Two layers, the last in float32."""
    layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1, dtype="float32")]
    return keras.Sequential([keras.Input((4,)), *layers])


def compiled(optimizer, metrics=("accuracy",), **values):
    """A tiny model, ready to fit."""
    model = tiny_model()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, metrics=list(metrics), **values)
    return model


def scaled(learning_rate=0.1, **values):
    return tfamp.LossScaleOptimizer(keras.optimizers.SGD(learning_rate), **values)


def fit(model, telemetry, inputs=INPUTS, targets=TARGETS, batch_size=8, **values):
    """Eight steps an epoch."""
    values = {"verbose": 0, "shuffle": False, "callbacks": [telemetry]} | values
    return model.fit(inputs, targets, batch_size=batch_size, **values)


class Left:
    """What a run left in its folder."""

    def __init__(self, path):
        self.rows = records.read_rows(path / "metrics.jsonl")
        self.steps = [row for row in self.rows if row["kind"] == "step"]
        self.epochs = [row for row in self.rows if row["kind"] == "epoch"]
        self.config = json.loads((path / "config.json").read_text())
        result = path / "result.json"
        self.result = json.loads(result.read_text()) if result.exists() else None

    def column(self, name):
        return [row.get(name) for row in self.steps]
