from __future__ import annotations

import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

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
    from debian_fashion_mnist import prepare_fashion_mnist

    data_dir = tmp_path_factory.mktemp("tfds")
    prepare_fashion_mnist(data_dir)
    return data_dir


@pytest.fixture
def global_policy():
    """Sets the global Keras policy; restores it afterwards."""
    import keras

    previous = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(previous)
