"""What every test shares: TensorFlow loaded quietly, and a clean Keras around each test."""

from __future__ import annotations

import gc
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tfamp.training import startup

# scripts/test.sh sets it; a test that says nothing of it runs as without the scripts.
os.environ.pop("TFAMP_SCRIPTS", None)

# Of the whole suite, the process that hands out the tests runs none: TensorFlow would cost it
# seconds. Given a folder it loads that folder's conftest too, which imports Keras.
HANDS_OUT = (
    "-n" in sys.argv
    and "PYTEST_XDIST_WORKER" not in os.environ
    and not any(pathlib.Path(argument.split("::")[0]).exists() for argument in sys.argv[1:])
)
if not HANDS_OUT:
    startup.import_tensorflow()
    import tensorflow as tf

    # Two CPUs, so that one process can be two replicas. Must come before TensorFlow computes
    # anything; whatever asks for no device runs on the first.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], 2 * [tf.config.LogicalDeviceConfiguration()]
    )
    startup.import_tensorflow(float16=True)

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
MIXED_POLICIES = ("mixed_float16", "mixed_bfloat16")


def pytest_collection_finish() -> None:
    """Keeps the garbage collector off a million objects that will never be garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_keras() -> Iterator[None]:
    """Float32 policy before and after, and fixed seeds.

    The session is left as it is: clearing it costs up to seconds in a process that has compiled
    much, and no test depends on names that count from the start.
    """
    import keras

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


DEBIAN_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="session")
def debian_source() -> pathlib.Path:
    """The folder of Debian's Fashion-MNIST files."""
    if not (DEBIAN_FASHION_MNIST / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    return DEBIAN_FASHION_MNIST


@pytest.fixture(scope="session")
def fashion_mnist_dir(debian_source, tmp_path_factory) -> pathlib.Path:
    """A --data_dir with the real TFDS set fashion_mnist, prepared with no network."""
    from tests.data.debian_fashion_mnist import prepare_fashion_mnist

    data_dir = tmp_path_factory.mktemp("tfds")
    prepare_fashion_mnist(data_dir)
    return data_dir


@pytest.fixture(scope="session")
def two_replicas() -> Any:
    """A strategy of two replicas in this process, one on each logical CPU."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
