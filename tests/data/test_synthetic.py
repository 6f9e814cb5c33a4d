from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfamp.data import pipeline, synthetic

# A graph, as in tf.data: map_fn takes milliseconds an image in eager mode.
make_examples = tf.function(synthetic.make_examples)


def examples(indices, *, seed=0, image_size=16, num_classes=4):
    images, labels = make_examples(
        tf.constant(indices, tf.int64), seed=seed, image_size=image_size, num_classes=num_classes
    )
    return images.numpy(), labels.numpy()


def test_example_is_a_function_of_seed_and_index():
    together, labels = examples([0, 1, 2, 3, 4, 5])
    apart, _ = examples([5])
    np.testing.assert_array_equal(together[5], apart[0])
    assert labels.tolist() == [0, 1, 2, 3, 0, 1]
    other, _ = examples([5], seed=1)
    assert (other != apart).mean() > 0.9


def test_examples_differ_and_fill_the_range():
    images, _ = examples(range(64), image_size=32)
    assert images.shape == (64, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 64
    assert 100 < images.mean() < 155
    assert images.std() > 25
    assert images.min() < 40
    assert images.max() > 215


def test_odd_sizes():
    images, _ = examples([7], image_size=9)
    assert images.shape == (1, 9, 9, 3)


def test_global_seed_changes_nothing():
    tf.random.set_seed(1)
    first, _ = examples([3])
    tf.random.set_seed(2)
    second, _ = examples([3])
    np.testing.assert_array_equal(first, second)


def test_pixels_are_golden():
    images, _ = examples([0, 1], image_size=8)
    assert images[0, 0, :2].tolist() == [[71, 65, 65], [199, 97, 196]]
    assert images[1, 7, 6:].tolist() == [[68, 199, 209], [195, 65, 92]]


def test_large_split_is_generated_as_the_small_one_is(monkeypatch):
    arguments = {"seed": 5, "image_size": 12, "num_classes": 3, "first": 10, "num_examples": 70}
    small = synthetic.make_split(**arguments)
    monkeypatch.setattr(pipeline, "MEMORY_LIMIT_BYTES", 0)
    large = synthetic.make_split(**arguments)
    indices = tf.constant([0, 69, 33], tf.int64)
    for kept, made in zip(small.fetch(indices), large.fetch(indices), strict=True):
        np.testing.assert_array_equal(kept, made)
    expected, labels = examples([10, 79, 43], seed=5, image_size=12, num_classes=3)
    np.testing.assert_array_equal(small.fetch(indices)[0], expected)
    np.testing.assert_array_equal(small.fetch(indices)[1], labels)


def test_a_linear_probe_learns_it_but_not_wholly():
    images, labels = examples(range(900), image_size=32, num_classes=10)
    inputs = images.reshape(900, -1) / 255.0 - 0.5
    train, test = slice(0, 600), slice(600, 900)
    targets = np.eye(10)[labels[train]] - 0.1
    # Ridge regression in its dual form: 600 examples are fewer than 3,072 pixels.
    gram = inputs[train] @ inputs[train].T + 10.0 * np.eye(600)
    weights = inputs[train].T @ np.linalg.solve(gram, targets)
    accuracy = np.mean((inputs[test] @ weights).argmax(-1) == labels[test])
    assert 0.6 < accuracy < 0.99  # Chance is 0.1.
