from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.marks import slow
from tfamp.data import augment
from tfamp.run.config import AUGMENTATIONS

NAMES = ("flip_crop", "randaugment", "mixup_cutmix")
BATCH = 16


def batch(image_shape=(16, 16, 3)):
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, *image_shape)).astype(np.float32)
    return tf.constant(images), tf.one_hot(tf.range(BATCH) % 4, 4)


@functools.cache
def traced(name, image_shape):
    return tf.function(augment.build(name, image_shape))


def stream(name, image_shape=(16, 16, 3), threads=2):
    """Augments the same batch with the seeds [7, 0], [7, 1], ..."""
    function = augment.build(name, image_shape)
    images, labels = batch(image_shape)

    def at(step):
        return function(images, labels, tf.stack([tf.constant(7, tf.int64), step]))

    return tf.data.Dataset.range(2).map(at, num_parallel_calls=threads, deterministic=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", ["mixed_float16", slow("mixed_bfloat16"), slow("float16")])
def test_every_policy_gives_the_same_finite_float32(name, policy, global_policy):
    results = {}
    for set_now in ("float32", policy):
        global_policy(set_now)
        dataset = stream(name)
        assert keras.config.dtype_policy().name == set_now  # Restored after the tracing.
        assert dataset.element_spec == (
            tf.TensorSpec((BATCH, 16, 16, 3), tf.float32),
            tf.TensorSpec((BATCH, 4), tf.float32),
        )
        results[set_now] = [(images.numpy(), labels.numpy()) for images, labels in dataset]
        for images, _ in results[set_now]:
            assert np.isfinite(images).all()
            assert images.min() >= 0.0
            assert images.max() <= 255.0 + 1e-3
    for (images, labels), (expected, expected_labels) in zip(
        results[policy], results["float32"], strict=True
    ):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("name", NAMES)
def test_output_is_a_function_of_the_seed_in_any_order_of_drawing(name):
    tf.random.set_seed(1)
    forward = [images.numpy() for images, _ in stream(name, threads=2)]
    tf.random.set_seed(2)
    function = traced(name, (16, 16, 3))
    images, labels = batch()
    for step in (1, 0):
        again, _ = function(images, labels, tf.constant([7, step], tf.int64))
        np.testing.assert_array_equal(again, forward[step])
    assert not np.array_equal(forward[0], forward[1])


@pytest.mark.parametrize("name", NAMES)
def test_one_channel(name):
    for images, labels in stream(name, image_shape=(28, 28, 1)):
        assert images.shape == (BATCH, 28, 28, 1)
        assert np.isfinite(images).all()
        np.testing.assert_allclose(tf.reduce_sum(labels, -1), np.ones(BATCH), atol=1e-6)


@pytest.mark.parametrize("name", ["flip_crop", "randaugment"])
def test_images_are_treated_one_by_one_and_labels_kept(name):
    same = tf.tile(batch()[0][:1], [BATCH, 1, 1, 1])
    labels = batch()[1]
    images, new_labels = traced(name, (16, 16, 3))(same, labels, tf.constant([1, 2], tf.int64))
    assert len({image.tobytes() for image in images.numpy()}) > 8
    np.testing.assert_array_equal(new_labels, labels)


def test_flip_crop_yields_exactly_the_crops_of_the_padded_image_and_its_mirror():
    image = np.random.default_rng(1).uniform(1, 255, (16, 16, 1)).astype(np.float32)
    function = augment.build("flip_crop", (16, 16, 1))
    images, _ = tf.function(function)(
        np.tile(image, (512, 1, 1, 1)), tf.zeros((512, 2)), tf.constant([0, 0], tf.int64)
    )
    possible = set()
    for mirrored in (image, image[:, ::-1]):
        padded = np.pad(mirrored, ((2, 2), (2, 2), (0, 0)))  # 4 pixels at 32 are 2 at 16.
        for top in range(5):
            for left in range(5):
                possible.add(padded[top : top + 16, left : left + 16].tobytes())
    seen = {made.tobytes() for made in images.numpy()}
    assert seen == possible  # All 50 of them, in 512 draws.


def rows_with_pixels_of_one_class():
    """Images whose every pixel says which example it came from, and labels likewise."""
    images = np.broadcast_to(np.arange(BATCH)[:, None, None, None] * 10.0, (BATCH, 16, 16, 1))
    return tf.constant(images, tf.float32), tf.eye(BATCH)


def test_mixed_labels_weigh_the_pixels_exactly():
    function = tf.function(augment.build("mixup_cutmix", (16, 16, 1)))
    images, labels = rows_with_pixels_of_one_class()
    num_cutmix = 0
    for step in range(24):
        mixed, weights = function(images, labels, tf.constant([3, step], tf.int64))
        np.testing.assert_allclose(tf.reduce_sum(weights, -1), np.ones(BATCH), atol=1e-6)
        # Both are linear: the mean pixel is the weighted mean of the sources' pixels.
        sources = np.arange(BATCH) * 10.0
        np.testing.assert_allclose(
            mixed.numpy().mean((1, 2, 3)), weights.numpy() @ sources, atol=1e-3
        )
        num_cutmix += bool(np.isin(mixed.numpy(), sources).all())
    assert 4 <= num_cutmix <= 20


def test_randaugment_changes_images_moderately():
    images, labels = batch()
    changed, _ = traced("randaugment", (16, 16, 3))(images, labels, tf.constant([0, 0], tf.int64))
    difference = np.abs(changed - images).mean()
    assert 5.0 < difference < 110.0


def test_none_is_none():
    assert augment.build("none", (8, 8, 3)) is None


def test_every_augmentation_that_a_config_takes_has_a_maker():
    assert {"none", *augment.MAKERS} == set(AUGMENTATIONS)


def test_policy_is_restored_after_an_error(global_policy, monkeypatch):
    def broken(image_shape):
        assert keras.config.dtype_policy().name == "float32"
        raise ZeroDivisionError

    global_policy("mixed_float16")
    monkeypatch.setitem(augment.MAKERS, "flip_crop", broken)
    with pytest.raises(ZeroDivisionError):
        augment.build("flip_crop", (8, 8, 3))
    assert keras.config.dtype_policy().name == "mixed_float16"
