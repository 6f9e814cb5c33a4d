"""What every test shares: TensorFlow loaded quietly, and a clean Keras around each test."""

from __future__ import annotations

from tfamp.run import quiet

quiet.import_tensorflow()

import tensorflow as tf  # noqa: E402

# Two CPUs, so that one process can be two replicas. Must come before TensorFlow computes anything;
# whatever asks for no device runs on the first.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], 2 * [tf.config.LogicalDeviceConfiguration()]
)
quiet.import_tensorflow(float16=True)

from collections.abc import Iterator  # noqa: E402

import keras  # noqa: E402
import pytest  # noqa: E402

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
MIXED_POLICIES = ("mixed_float16", "mixed_bfloat16")


@pytest.fixture(autouse=True)
def clean_keras() -> Iterator[None]:
    """Float32 policy before and after, fixed seeds, no layers left from the test before."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two replicas in this process, one on each logical CPU."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
