"""`fashion_mnist_mini`: a real image set that needs no download.

5,000 training and 1,000 test images of Fashion-MNIST (28x28x1, ten classes, as many of each),
shipped with the package under Fashion-MNIST's MIT licence (fashion_mnist_mini.LICENSE.txt).
scripts/make_fashion_mnist_mini.py made the file and states the rule of choice.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
from typing import NamedTuple

import numpy as np

from tfamp.data import pipeline

IMAGE_SHAPE = (28, 28, 1)
NUM_CLASSES = 10
SHA256 = "1064eff4cef408fe773c6040772d7cb7c114c2d2b60accb705d268cbecb8d44e"

_PATH = pathlib.Path(__file__).with_name("fashion_mnist_mini.npz")


# Mean and standard deviation of Fashion-MNIST's pixels in [0, 1].
STATISTICS = ((0.2860,), (0.3530,))


class Arrays(NamedTuple):
    """The set: images uint8 [n, 28, 28, 1], labels uint8 [n] in [0, 10)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read(path: pathlib.Path = _PATH) -> Arrays:
    """Reads the embedded set after checking its SHA-256.

    Raises:
        OSError: The file is missing, or its content is not what was shipped.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise OSError(
            f"{path} is corrupted: its SHA-256 is {digest}, that of the shipped file is {SHA256}. "
            "Install tfamp again, or rebuild the file with scripts/make_fashion_mnist_mini.py."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return Arrays(
            train_images=archive["train_images"][..., np.newaxis],
            train_labels=archive["train_labels"],
            test_images=archive["test_images"][..., np.newaxis],
            test_labels=archive["test_labels"],
        )


def open_source(wanted: pipeline.Wanted) -> pipeline.Source:
    """Opens the set in memory."""
    arrays = read()
    size = wanted.image_size or IMAGE_SHAPE[0]

    def split(images: np.ndarray, labels: np.ndarray) -> pipeline.IndexedSplit:
        return pipeline.IndexedSplit(pipeline.fetch_from_memory(images, labels, size), len(labels))

    return pipeline.Source(
        train=split(arrays.train_images, arrays.train_labels),
        validation=split(arrays.test_images, arrays.test_labels),
        image_shape=(size, size, 1),
        num_classes=NUM_CLASSES,
        statistics=STATISTICS,
    )
