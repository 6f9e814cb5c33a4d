"""One of two workers; test_workers.py starts both. Prints one line of JSON for each case.

TF_CONFIG=... python worker.py CASE [CASE ...]
"""

from __future__ import annotations

import json
import math
import sys

from tfamp.training import startup

startup.import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tfamp  # noqa: E402
from tfamp.precision.collapse import LossScaleCollapse  # noqa: E402
from tfamp.training.callbacks import DeviceCallbackList  # noqa: E402
from tfamp.training.custom import CustomLoop  # noqa: E402
from tfamp.training.distribute import multi_worker_keras  # noqa: E402

INF, NAN = math.inf, math.nan
INPUTS = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
LABELS = np.eye(3, dtype="float32")[np.random.default_rng(1).integers(0, 3, 64)]


def scaled(**values):
    return tfamp.LossScaleOptimizer(keras.optimizers.SGD(1.0, **values), 8.0, min_scale=2.0)


def drive(strategy, pairs, optimizer_of=scaled, tells_losses=False, **values):
    """One weight at 1.0, stepped with a gradient for each worker, and losses of the same size.

    Where a gradient is not finite the loss is 1, unless `tells_losses` is set.
    """
    with strategy.scope():
        weight = keras.Variable([1.0], name="weight")
        optimizer = optimizer_of(**values)
        optimizer.build([weight])

    def replica_step(gradients):
        gradient = gradients[tf.distribute.get_replica_context().replica_id_in_sync_group]
        scaled_gradient = gradient * optimizer.scale_loss(tf.ones([]))
        is_told = tells_losses | tf.math.is_finite(gradient)
        optimizer.scale_loss(tf.where(is_told, gradient, 1.0))
        optimizer.apply([tf.reshape(scaled_gradient, [1])], [weight])

    step = tf.function(lambda gradients: strategy.run(replica_step, args=(gradients,)))
    weights = []
    for pair in pairs:
        step(tf.constant(pair, tf.float32))
        weights.append(float(weight.value.numpy()[0]))
    return optimizer, weights


def described(optimizer, weights):
    rows = optimizer.history()[1]
    return {
        "weights": weights,
        "scale": rows["scale"].tolist(),
        "loss": rows["loss"].tolist(),
        "grad_norm": rows["grad_norm"].tolist(),
        "skipped_non_finite_loss": rows["skipped_non_finite_loss"].tolist(),
        "applied": optimizer.steps_applied,
    }


def skips(strategy):
    pairs = [(0.25, 0.5), (INF, 0.5), (0.25, NAN), (0.5, -0.125)]
    return described(*drive(strategy, pairs, momentum=0.0))


def bad_losses(strategy):
    return described(*drive(strategy, [(0.25, NAN), (INF, 0.5), (0.5, 0.25)], tells_losses=True))


def clips(strategy):
    return described(*drive(strategy, [(3, 4)], global_clipnorm=1.0))


def accumulates(strategy):
    pairs = [(0.25, 0.5), (0.75, 0.5), (1, 1), (1, INF), (0.5, 0.5), (1, 0)]
    return described(*drive(strategy, pairs, gradient_accumulation_steps=2))


def collapses(strategy):
    optimizer, weights = drive(strategy, [(0.25, 0.5), (INF, 0), (0, INF), (0, NAN), (1, 1)])
    try:
        optimizer.raise_if_collapsed()
    except LossScaleCollapse as error:
        return {"weights": weights, "step": error.step, "has_nan": error.has_nan}
    return {"weights": weights}


def train(strategy, loop, bad_worker=None):
    """Four steps of 16 examples, 8 for each worker, perhaps with a bad one in the second."""
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8, "relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3, dtype="float32"),
            ]
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
        model.compile(scaled(momentum=0.5), loss=loss, metrics=metrics, jit_compile=False)
    labels = LABELS.copy()
    if bad_worker is not None:
        # Its loss is finite in float32, its gradient not in float16.
        labels[16 + 8 * bad_worker] = 1e30
    options = tf.data.Options()
    # Each worker takes every second half batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices((INPUTS, labels)).batch(16).with_options(options)
    batches = iter(strategy.experimental_distribute_dataset(data))
    seen = []
    for _ in range(4):
        here = strategy.experimental_local_results(next(batches)[1])[0]
        seen.append(bool((here.numpy() < 2).all()))
    with multi_worker_keras():
        if loop == "fit":
            history = model.fit(
                data.repeat(), steps_per_epoch=4, epochs=1, verbose=0, shuffle=False
            )
            measured = model.evaluate(
                tf.data.Dataset.from_tensor_slices((INPUTS, LABELS))
                .batch(16)
                .with_options(options),
                verbose=0,
                return_dict=True,
            )
            history = history.history | {f"val_{name}": [v] for name, v in measured.items()}
        else:
            listed = DeviceCallbackList(
                [], add_history=True, model=model, epochs=1, steps=4, verbose=0
            )
            validation = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(16)
            CustomLoop(model).run(data.repeat(), validation.with_options(options), 1, 4, listed)
            history = model.history.history
    sums = [float(np.abs(v.value.numpy()).sum()) for v in model.trainable_variables]
    rows = model.optimizer.history()[1]
    return {
        "saw_only_good": seen,
        "weights": sums,
        "scale": rows["scale"].tolist(),
        "skipped_total": rows["skipped_total"].tolist(),
        "loss": rows["loss"].tolist(),
        "history": dict(history),
    }


def stock_overflow(strategy):
    """Stock Keras: one worker skips, the other waits for it in the sum, for ever."""
    stock = keras.optimizers.LossScaleOptimizer
    _, weights = drive(strategy, [(0.5, INF)], lambda: stock(keras.optimizers.SGD(1.0), 8.0))
    print(json.dumps({"case": "stock_overflow", "weights": weights}), flush=True)
    sys.stdin.read()  # Stays in the cluster: leaving would wake the other with an error.
    return {}


def stock_fit(strategy):
    """Keras's `fit` without help."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("sgd", loss="mse", jit_compile=False)
    try:
        model.fit(tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(16), verbose=0)
    except Exception as error:
        return {"error": type(error).__name__}
    return {"error": None}


CASES = {
    "skips": skips,
    "bad_losses": bad_losses,
    "clips": clips,
    "accumulates": accumulates,
    "collapses": collapses,
    "fit": lambda strategy: train(strategy, "fit"),
    "custom": lambda strategy: train(strategy, "custom"),
    "fit_bad_0": lambda strategy: train(strategy, "fit", 0),
    "fit_bad_1": lambda strategy: train(strategy, "fit", 1),
    "custom_bad_0": lambda strategy: train(strategy, "custom", 0),
    "custom_bad_1": lambda strategy: train(strategy, "custom", 1),
    "stock_overflow": stock_overflow,
    "stock_fit": stock_fit,
}


def main(names):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    for name in names:
        print(json.dumps({"case": name} | CASES[name](strategy)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
