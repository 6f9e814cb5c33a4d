"""A model with a `train_step` of its own, and a loop without `fit`.

    scripts/python.sh experiments/scenarios/custom_train_step.py

Two lines are what loss scaling asks for: `scale_loss` inside the tape, and `apply` with the
gradients as they come. What is reported is the loss before scaling. A loop of your own asks
`raise_if_collapsed` now and then; tfamp's callback does so in `fit`.
"""

import keras
import tensorflow as tf

import tfamp

keras.config.set_dtype_policy("mixed_float16")
keras.utils.set_random_seed(0)


class Regression(keras.Model):
    """Two layers and a step that is written out."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.out = keras.layers.Dense(1, dtype="float32")
        self.mean_loss = keras.metrics.Mean(name="loss")

    def call(self, x):
        return self.out(self.hidden(x))

    @property
    def metrics(self):
        return [self.mean_loss]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.mean_loss.update_state(loss)
        return {"loss": self.mean_loss.result()}


inputs = tf.random.normal([256, 4])
targets = tf.reduce_sum(inputs, axis=1, keepdims=True)

# In fit.
model = Regression()
model.compile(tfamp.LossScaleOptimizer(keras.optimizers.Adam(0.01)), jit_compile=True)
losses = model.fit(inputs, targets, epochs=5, verbose=0).history["loss"]
print(f"fit:  loss {losses[0]:.3f} -> {losses[-1]:.3f}, skipped {model.optimizer.skipped_total}")

# Without it.
model = Regression()
model(inputs[:1])
model.optimizer = tfamp.LossScaleOptimizer(keras.optimizers.Adam(0.01))
model.optimizer.build(model.trainable_variables)
step = tf.function(lambda x, y: model.train_step((x, y)), jit_compile=True)
for _ in range(5):
    model.reset_metrics()
    for batch in tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(32):
        logs = step(*batch)
    model.optimizer.raise_if_collapsed()
print(f"loop: loss {float(logs['loss']):.3f}, skipped {model.optimizer.skipped_total}")
