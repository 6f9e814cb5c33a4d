"""Builds tfamp/data/fashion_mnist_mini.npz from the Fashion-MNIST files of Debian.

    apt-get install dataset-fashion-mnist
    scripts/python.sh scripts/make_fashion_mnist_mini.py

Needs NumPy only. The rule: of each split, the first N images of each class in file order
(N is 500 for training, 100 for test), kept in file order. The same input and the same zlib give
the same bytes: the archive carries no time stamps. The last line is the SHA-256 that
`tfamp/data/embedded.py` records.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import pathlib

import numpy as np

SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")
TARGET = pathlib.Path(__file__).resolve().parents[1] / "tfamp" / "data" / "fashion_mnist_mini.npz"
NUM_CLASSES = 10
PER_CLASS = {"train": 500, "test": 100}
FILE_PREFIX = {"train": "train", "test": "t10k"}
MAX_BYTES = 3_000_000


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads one gzipped IDX file of bytes (the format of http://yann.lecun.com/exdb/mnist).

    Args:
        path: A `.gz` file: two zero bytes, the type 8 (uint8), the rank, one big-endian
            int32 per dimension, then the values.

    Returns:
        A uint8 array of the shape that the header gives.

    Raises:
        ValueError: The header is not that of a uint8 IDX file.
    """
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} does not begin like a uint8 IDX file: {content[:4]!r}.")
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the positions of the first `count` examples of every class, ascending."""
    positions = [np.flatnonzero(labels == label)[:count] for label in range(NUM_CLASSES)]
    return np.sort(np.concatenate(positions))


def select(source: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the four source files and applies the rule.

    Returns:
        `{train,test}_images` (uint8 [n, 28, 28]) and `{train,test}_labels` (uint8 [n]).
    """
    arrays = {}
    for split, count in PER_CLASS.items():
        images = read_idx(source / f"{FILE_PREFIX[split]}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{FILE_PREFIX[split]}-labels-idx1-ubyte.gz")
        chosen = first_of_each_class(labels, count)
        arrays[f"{split}_images"] = images[chosen]
        arrays[f"{split}_labels"] = labels[chosen]
    return arrays


def main() -> None:
    """Writes the archive and prints its size and SHA-256."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, default=SOURCE)
    parser.add_argument("--target", type=pathlib.Path, default=TARGET)
    arguments = parser.parse_args()
    arrays = select(arguments.source)
    np.savez_compressed(
        arguments.target,
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
    )
    content = arguments.target.read_bytes()
    if len(content) > MAX_BYTES:
        raise SystemExit(f"{arguments.target} has {len(content)} bytes, more than {MAX_BYTES}.")
    print(f"{arguments.target}: {len(content)} bytes")
    print(f"sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
