from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfamp.data import pipeline


def numbered_split(num_examples):
    """A split whose image i is a 2x2x1 image of value i, and whose label is i."""

    def fetch(indices):
        images = tf.cast(indices, tf.float32)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return tf.tile(images, [1, 2, 2, 1]), indices

    return pipeline.IndexedSplit(fetch, num_examples)


def finish(num_classes=12):
    return pipeline.Finish((2, 2, 1), num_classes, mean=(0.5,), std=(0.25,))


def labels_of(dataset, num_batches):
    return [labels.numpy().argmax(-1) for _, labels in itertools.islice(dataset, num_batches)]


def train(split, *, batch_size=4, seed=3, start_step=0, augment=None):
    return finish().train(
        split, batch_size=batch_size, seed=seed, start_step=start_step, augment=augment
    )


def test_every_epoch_is_a_new_permutation():
    batches = labels_of(train(numbered_split(12)), 9)
    epochs = [np.concatenate(batches[start : start + 3]) for start in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_never_straddle_an_epoch():
    # 11 examples in batches of 4: two batches an epoch, three examples dropped, no repetition.
    batches = labels_of(train(numbered_split(11)), 20)
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert len(set(first) | set(second)) == 8


def test_order_is_golden():
    indices = [
        pipeline.shuffled_indices(tf.constant(step, tf.int64), 10, 5, seed=1).numpy().tolist()
        for step in range(3)
    ]
    assert indices == [[9, 6, 8, 7, 1], [2, 3, 5, 4, 0], [6, 5, 2, 4, 1]]


def test_order_depends_on_the_seed_only():
    split = numbered_split(12)
    expected = np.array(labels_of(train(split), 7))
    tf.random.set_seed(99)
    np.testing.assert_array_equal(labels_of(train(split), 7), expected)
    assert not np.array_equal(labels_of(train(split, seed=4), 7), expected)


@pytest.mark.parametrize("start_step", [1, 3, 8, 1_000_000_007])
def test_start_step_continues_the_unbroken_stream(start_step):
    def add_seed(images, labels, seed):
        return images + tf.cast(seed[1] % 97, tf.float32), labels

    split = numbered_split(12)
    resumed = train(split, start_step=start_step, augment=add_seed)
    if start_step < 100:
        unbroken = train(split, augment=add_seed).skip(start_step)
    else:
        unbroken = train(split, start_step=start_step - 5, augment=add_seed).skip(5)
    for (images, labels), (expected_images, expected_labels) in zip(
        resumed.take(5), unbroken.take(5), strict=True
    ):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def test_each_step_has_its_own_augmentation_seed():
    def show_seed(images, labels, seed):
        return tf.zeros_like(images) + tf.cast(seed[1] % 4093, tf.float32), labels

    images = [
        images.numpy().flat[0] for images, _ in train(numbered_split(4), augment=show_seed).take(8)
    ]
    assert len(set(images)) == 8


def test_stream_is_infinite_static_and_deterministic():
    dataset = train(numbered_split(12))
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert dataset.element_spec == (
        tf.TensorSpec((4, 2, 2, 1), tf.float32),
        tf.TensorSpec((4, 12), tf.float32),
    )
    assert dataset.options().deterministic is True


def test_validation_is_in_order_and_complete():
    dataset = finish().validation(numbered_split(12), batch_size=5)
    batches = [labels.numpy().argmax(-1).tolist() for _, labels in dataset]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert dataset.cardinality() == 3
    assert dataset.element_spec[0].shape == (4, 2, 2, 1)


def test_validation_keeps_the_remainder_where_no_divisor_fits():
    dataset = finish().validation(numbered_split(11), batch_size=5)
    assert [len(labels) for _, labels in dataset] == [5, 5, 1]


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "expected"),
    [
        (1000, 128, 125),
        (10_000, 256, 250),
        (10_000, 128, 125),
        (512, 32, 32),
        (97, 32, 32),  # A prime.
        (96, 128, 96),
        (50, 128, 50),
        (7, 7, 7),
        (34, 16, 16),  # 17 is too large, 2 too small.
        (15, 6, 5),
        (9, 5, 3),  # 3 is at least 5 / 2.
    ],
)
def test_validation_batch_size(num_examples, batch_size, expected):
    assert pipeline.validation_batch_size(num_examples, batch_size) == expected


def test_normalisation_is_that_of_the_formula():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    split = pipeline.IndexedSplit(
        lambda indices: (tf.gather(tf.constant(pixels), indices), indices), 2
    )
    made = pipeline.Finish((3, 5, 3), 2, mean, std)
    (images, labels), *rest = made.validation(split, batch_size=2)
    assert not rest
    assert images.dtype == labels.dtype == tf.float32
    expected = (pixels / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    np.testing.assert_array_equal(labels, np.eye(2))


def test_resize_keeps_the_native_size_and_rounds_to_bytes():
    images = tf.constant(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1))
    assert pipeline.resize(images, 4) is images
    halved = pipeline.resize(images, 2)
    assert halved.dtype == tf.uint8
    # Antialiased: a triangle of twice the width, weights 3/8 3/8 1/8 within each row, normalised.
    weights = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7.0
    expected = weights @ np.arange(16).reshape(4, 4) @ weights.T
    np.testing.assert_array_equal(halved[0, :, :, 0], np.round(expected))
