"""A detector that float16 cannot train without a loss scale.

Nothing in it is made to fail: a plain stack of convolutions as in RetinaNet's heads, in Keras's own
initialisation; the focal loss with its paper's numbers and its first probability of an object, 0.01
(Lin et al. 2017, arXiv 1708.02002, sections 3.3 and 4.1); the last layer in float32. The loss is
what `compile(loss=keras.losses.BinaryFocalCrossentropy(...))` makes of it: the mean over all
outputs.

There are CELLS * CELLS * NUM_CLASSES = 7,840 outputs an image, 36 of them with an object. Divided
by all of a batch's, the gradient with respect to an output is at most a millionth; where there is
no object the focal loss makes it ten thousand times smaller. float16 ends at 6e-8. (RetinaNet has
8 million outputs an image, and divides by the number of objects.)
"""

from __future__ import annotations

import math

import keras

from experiments.loss_scaling.scenes import NUM_CLASSES, SIDE, STRIDE

FILTERS = 16
NUM_CONVOLUTIONS = 6
FIRST_PROBABILITY = 0.01
ALPHA, GAMMA = 0.25, 2.0


def build(filters: int = FILTERS, num_convolutions: int = NUM_CONVOLUTIONS) -> keras.Model:
    """Builds the detector under the global policy.

    Returns:
        A model from images `(batch, SIDE, SIDE, 1)` to float32 logits
        `(batch, CELLS, CELLS, NUM_CLASSES)`.
    """
    images = keras.Input((SIDE, SIDE, 1))
    features = images
    for number in range(num_convolutions):
        features = keras.layers.Conv2D(
            filters,
            3,
            strides=STRIDE if number == 1 else 1,
            padding="same",
            activation="relu",
            name=f"convolution{number + 1}",
        )(features)
    rare = keras.initializers.Constant(-math.log(1 / FIRST_PROBABILITY - 1))
    head = keras.layers.Conv2D(NUM_CLASSES, 1, bias_initializer=rare, dtype="float32", name="head")
    return keras.Model(images, head(features), name="detector")


def loss() -> keras.losses.Loss:
    """The focal loss, as a mean over all outputs."""
    return keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=ALPHA, gamma=GAMMA, from_logits=True
    )
