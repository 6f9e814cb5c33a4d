from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfamp.models import head


def test_the_classifier_multiplies_in_float32():
    """1 + 2**-12 is no float16 number: a head that computes in float16 gives 1 exactly."""
    features = keras.Input((2,), dtype="float16")
    model = keras.Model(features, head.classifier(features, 1, "ones"))
    ones_and_crumbs = tf.constant([[1.0, 2.0**-12]], tf.float16)
    np.testing.assert_array_equal(model(ones_and_crumbs), [[1.0 + 2.0**-12]])
    half = keras.layers.Dense(1, kernel_initializer="ones", dtype="mixed_float16")
    np.testing.assert_array_equal(half(ones_and_crumbs), [[1.0]])
