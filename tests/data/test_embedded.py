from __future__ import annotations

import hashlib
import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.messages import naming
from tfamp.data import embedded

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "make_fashion_mnist_mini.py"
FILE = pathlib.Path(embedded.__file__).with_name("fashion_mnist_mini.npz")


def test_shapes_and_balance():
    arrays = embedded.read()
    assert arrays.train_images.shape == (5000, 28, 28, 1)
    assert arrays.test_images.shape == (1000, 28, 28, 1)
    assert arrays.train_images.dtype == arrays.test_images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(arrays.train_labels), [500] * 10)
    np.testing.assert_array_equal(np.bincount(arrays.test_labels), [100] * 10)
    # The first labels of the original file: ankle boot, T-shirt, T-shirt, dress, T-shirt.
    assert arrays.train_labels[:5].tolist() == [9, 0, 0, 3, 0]


def test_the_mean_is_that_of_fashion_mnist():
    pixels = embedded.read().train_images / 255.0
    assert pixels.mean() == pytest.approx(0.2860, abs=0.003)
    assert pixels.std() == pytest.approx(0.3530, abs=0.003)


def test_file_is_small_and_has_its_licence_beside_it():
    assert FILE.stat().st_size <= 3_000_000
    licence = FILE.with_name("fashion_mnist_mini.LICENSE.txt").read_text()
    assert "The MIT License (MIT)" in licence
    assert "Copyright (c) 2017 Zalando SE" in licence


def test_a_corrupted_file_is_refused(tmp_path):
    content = bytearray(FILE.read_bytes())
    content[len(content) // 2] ^= 1
    broken = tmp_path / "broken.npz"
    broken.write_bytes(content)
    with pytest.raises(OSError, match=naming(broken, "SHA-256", "Install tfamp")):
        embedded.read(broken)


def test_a_truncated_file_is_refused(tmp_path):
    broken = tmp_path / "short.npz"
    broken.write_bytes(FILE.read_bytes()[:-1])
    with pytest.raises(OSError, match=naming(broken, "SHA-256")):
        embedded.read(broken)


def script():
    spec = importlib.util.spec_from_file_location("make_fashion_mnist_mini", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pixels_are_those_of_the_source(debian_source):
    selected = script().select(debian_source)
    arrays = embedded.read()
    np.testing.assert_array_equal(arrays.train_images[..., 0], selected["train_images"])
    np.testing.assert_array_equal(arrays.train_labels, selected["train_labels"])
    np.testing.assert_array_equal(arrays.test_images[..., 0], selected["test_images"])
    np.testing.assert_array_equal(arrays.test_labels, selected["test_labels"])


def test_the_rule_is_the_first_of_each_class_in_file_order():
    labels = np.array(list(range(10)) + [3, 3, 0] + list(range(10)), np.uint8)
    chosen = script().first_of_each_class(labels, 2)
    assert chosen.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 17, 18, 19, 20, 21, 22]


def test_building_twice_gives_the_same_bytes(debian_source, tmp_path):
    digests = set()
    for name in ("one.npz", "two.npz"):
        target = tmp_path / name
        # -I: NumPy is all that the script needs of the environment.
        subprocess.run(
            [sys.executable, "-I", SCRIPT, "--target", target], check=True, capture_output=True
        )
        digests.add(hashlib.sha256(target.read_bytes()).hexdigest())
    assert len(digests) == 1
    with np.load(tmp_path / "one.npz", allow_pickle=False) as built:
        np.testing.assert_array_equal(built["train_images"], embedded.read().train_images[..., 0])
