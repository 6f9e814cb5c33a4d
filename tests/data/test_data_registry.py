from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.marks import slow
from tests.messages import says
from tfamp.data import embedded, registry
from tfamp.run.errors import InputError, as_flag


def load(name="fashion_mnist_mini", **arguments):
    return registry.load(name, **{"batch_size": 32, "seed": 0, **arguments})


def test_embedded_set():
    data = load(batch_size=128)
    assert data.name == "fashion_mnist_mini"
    assert data.image_shape == (28, 28, 1)
    assert (data.num_train, data.num_validation, data.num_classes) == (5000, 1000, 10)
    assert data.steps_per_epoch == 39
    assert data.train.element_spec == (
        tf.TensorSpec((128, 28, 28, 1), tf.float32),
        tf.TensorSpec((128, 10), tf.float32),
    )
    assert data.validation.element_spec[0].shape == (125, 28, 28, 1)
    arrays = embedded.read()
    images, labels = zip(*data.validation, strict=True)
    expected = (arrays.test_images / 255.0 - 0.2860) / 0.3530
    np.testing.assert_allclose(np.concatenate(images), expected, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate(labels).argmax(-1), arrays.test_labels)


def test_an_epoch_has_the_real_images_with_their_labels_once_each():
    data = load(batch_size=50)
    arrays = embedded.read()
    known = {
        image.tobytes(): label
        for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)
    }
    seen = []
    for images, labels in data.train.take(data.steps_per_epoch):
        pixels = np.round((images * 0.3530 + 0.2860) * 255.0).astype(np.uint8)
        for image, label in zip(pixels, labels.numpy().argmax(-1), strict=True):
            assert known[image.tobytes()] == label
            seen.append(image.tobytes())
    assert len(set(seen)) == len(known)
    assert len(seen) == 5000


def test_embedded_set_in_another_size():
    data = load(image_size=32)
    assert data.image_shape == (32, 32, 1)
    assert data.train.element_spec[0].shape == (32, 32, 32, 1)
    images, _ = next(iter(data.train))
    assert images.dtype == tf.float32


def test_synthetic_defaults():
    data = load("synthetic")
    assert data.image_shape == (32, 32, 3)
    assert (data.num_train, data.num_validation, data.num_classes) == (2048, 512, 10)
    assert data.steps_per_epoch == 64
    images, labels = next(iter(data.train))
    assert float(tf.math.reduce_std(images)) > 0.3
    np.testing.assert_array_equal(tf.reduce_sum(labels, -1), np.ones(32))


def test_synthetic_values():
    data = load("synthetic", image_size=48, num_classes=7, num_examples=100, batch_size=40)
    assert data.image_shape == (48, 48, 3)
    # A quarter of 100 would be less than a batch.
    assert (data.num_train, data.num_validation, data.num_classes) == (100, 40, 7)
    assert data.steps_per_epoch == 2


def test_synthetic_splits_do_not_overlap():
    data = load("synthetic", num_examples=64)
    train = {image.tobytes() for images, _ in data.train.take(2) for image in images.numpy()}
    validation = {image.tobytes() for images, _ in data.validation for image in images.numpy()}
    assert len(train) == 64
    assert len(validation) == 32
    assert not train & validation


@pytest.mark.parametrize(
    ("name", "augment"),
    [
        ("fashion_mnist_mini", "mixup_cutmix"),
        ("synthetic", "flip_crop"),
        slow("fashion_mnist_mini", "none"),
        slow("fashion_mnist_mini", "flip_crop"),
        slow("synthetic", "none"),
        slow("synthetic", "mixup_cutmix"),
    ],
)
def test_same_arguments_same_stream_and_resumable(name, augment):
    size = {"num_examples": 128} if name == "synthetic" else {}

    def batches(start_step, count, **arguments):
        data = load(name, augment=augment, start_step=start_step, **size, **arguments)
        return list(itertools.islice(data.train.as_numpy_iterator(), count))

    first = batches(0, 6)
    tf.random.set_seed(123)
    for got, expected in zip(batches(4, 2), first[4:], strict=True):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
    assert not np.array_equal(batches(0, 1, seed=1)[0][0], first[0][0])


def test_augmentation_leaves_validation_alone():
    plain, augmented = load(), load(augment="mixup_cutmix")
    np.testing.assert_array_equal(
        next(iter(plain.validation))[0], next(iter(augmented.validation))[0]
    )
    assert not np.array_equal(next(iter(plain.train))[0], next(iter(augmented.train))[0])


@pytest.mark.parametrize("policy", ["mixed_float16", slow("mixed_bfloat16"), slow("float16")])
def test_global_policy_changes_nothing(policy):
    import keras

    expected = next(iter(load(augment="mixup_cutmix").train))
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        got = next(iter(load(augment="mixup_cutmix").train))
        assert keras.config.dtype_policy().name == policy
    finally:
        keras.config.set_dtype_policy(previous)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == tf.float32
        np.testing.assert_array_equal(a, b)


def test_distributed_batches_are_shares_of_the_global_batch():
    # Data sharding, not file sharding: the order is the same for any number of workers.
    options = load().train.options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    assert options.experimental_distribute.auto_shard_policy == policy


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fashion_mnist_mini", {"batch_size": 5001}, ("--batch_size=5001", 5000)),
        ("synthetic", {"num_examples": 8}, ("--batch_size=32", 8)),
        ("synthetic", {"batch_size": 0}, ("--batch_size=0", 1)),
        ("synthetic", {"image_size": 4}, ("--image_size=4", 8)),
        ("synthetic", {"num_classes": 1}, ("--num_classes=1", 2)),
        ("synthetic", {"num_examples": 0}, ("--num_examples=0", 1)),
        ("fashion_mnist_mini", {"num_classes": 10}, ("--num_classes=10", "--dataset=synthetic")),
        ("cifar100", {"num_examples": 10}, ("--num_examples=10", "--dataset=synthetic")),
        (
            "fashion_mnist_mini",
            {"augment": "cutmix"},
            ("'cutmix'", "'mixup_cutmix'", "--augment"),
        ),
        ("fashion-mnist-mini", {}, ("'fashion-mnist-mini'", "'fashion_mnist_mini'", "--dataset")),
        ("", {}, ("''", "--dataset")),
    ],
)
def test_bad_values_are_refused_at_the_door(name, arguments, message):
    with pytest.raises(InputError) as raised:
        load(name, **arguments)
    assert says(raised.value.told(as_flag), *message)


@pytest.mark.slow
def test_slow_packages_are_imported_only_where_used():
    code = (
        "import sys; from tfamp.data import registry;"
        "registry.load('fashion_mnist_mini', batch_size=8, seed=0, augment='flip_crop');"
        "sys.exit(bool({'tensorflow_datasets', 'keras_cv'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
