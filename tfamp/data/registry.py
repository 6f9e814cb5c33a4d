"""The door to the data: a name and a few values in, an `ImageData` out."""

from __future__ import annotations

import dataclasses
import os
import re

import numpy as np
import tensorflow as tf

from tfamp.data import augment as augmentation
from tfamp.data import embedded, pipeline, synthetic
from tfamp.run import catalogue, errors
from tfamp.run.errors import setting

NAMES = (embedded.NAME, synthetic.NAME)

# Per channel, of pixels in [0, 1].
_FASHION_MNIST = ((0.2860,), (0.3530,))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OTHER_GREY = ((0.5,), (0.25,))


@dataclasses.dataclass(frozen=True)
class ImageData:
    """An image classification set, ready to train on.

    Elements of both streams are images, float32 [batch, height, width, channels], normalised, and
    labels, float32 one-hot (or mixed) [batch, num_classes].

    Attributes:
        name: The name it was loaded by.
        train: Infinite, in a new order each epoch, full batches of a static shape.
        validation: Finite and in order. Its batch is the largest divisor of `num_validation` in
            [batch_size / 2, batch_size], or else `batch_size` with a smaller last batch.
        image_shape: (height, width, channels).
        num_classes: Number of classes.
        num_train: Examples in the training split.
        num_validation: Examples in the validation split.
        steps_per_epoch: Full batches in one epoch; the rest of each epoch's permutation is dropped.
    """

    name: str
    train: tf.data.Dataset
    validation: tf.data.Dataset
    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_validation: int
    steps_per_epoch: int


@dataclasses.dataclass(frozen=True)
class _Source:
    train: pipeline.Split
    validation: pipeline.Split
    image_shape: tuple[int, int, int]
    num_classes: int


def load(
    name: str,
    *,
    batch_size: int,
    seed: int,
    image_size: int | None = None,
    data_dir: str | None = None,
    num_classes: int | None = None,
    num_examples: int | None = None,
    augment: str = "none",
    deterministic: bool = False,
    start_step: int = 0,
) -> ImageData:
    """Loads a set.

    The training stream is a function of the arguments: neither the number of threads nor the
    global random seed nor the global dtype policy changes it.

    Args:
        name: `fashion_mnist_mini`, `synthetic`, or a TFDS image classification set.
        batch_size: Examples in a training batch, over all replicas.
        seed: Of order and augmentation, and of the content of `synthetic`.
        image_size: Height and width in pixels; None for the native size (`synthetic`: 32).
        data_dir: Where TFDS keeps its sets; None for its default.
        num_classes: Of `synthetic` only; 10 by default.
        num_examples: Training examples, of `synthetic` only; 2,048 by default. Its validation split
            has a quarter as many, and at least a batch.
        augment: One of `augment.NAMES`, for the training stream.
        deterministic: Decodes JPEG files by the exact method instead of the fastest. The order
            and the augmentation are reproducible either way.
        start_step: The training stream begins where that of an unbroken run would be after this
            many steps.

    Raises:
        InputError: A value is out of range or does not fit the set, or the set cannot be had.
    """
    catalogue.check_dataset("dataset", name)
    augmentation.check_name(augment)
    _check_at_least("batch_size", batch_size, 1)
    _check_at_least("image_size", image_size, 8)
    _check_batch_fits(batch_size, image_size)
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}; it counts steps from 0.")
    if name == synthetic.NAME:
        source = _open_synthetic(batch_size, seed, image_size, num_classes, num_examples)
    else:
        _refuse_synthetic_only(name, "num_classes", num_classes)
        _refuse_synthetic_only(name, "num_examples", num_examples)
        is_embedded = name == embedded.NAME
        source = (
            _open_embedded(image_size)
            if is_embedded
            else _open_tfds(name, data_dir, image_size, deterministic)
        )
    num_train, num_validation = source.train.num_examples, source.validation.num_examples
    if batch_size > num_train:
        raise errors.InputError(
            f"{setting('batch_size', batch_size)} is more than the {num_train} training examples "
            f"of {setting('dataset', name)}. A batch takes at most all of them. Set "
            f"{setting('batch_size')} to {num_train} or less."
        )
    mean, std = _statistics(name, source.image_shape[-1])
    finish = pipeline.Finish(source.image_shape, source.num_classes, mean, std)
    return ImageData(
        name=name,
        train=finish.train(
            source.train,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            augment=augmentation.build(augment, source.image_shape),
        ),
        validation=finish.validation(source.validation, batch_size=batch_size),
        image_shape=source.image_shape,
        num_classes=source.num_classes,
        num_train=num_train,
        num_validation=num_validation,
        steps_per_epoch=num_train // batch_size,
    )


def _open_embedded(image_size: int | None) -> _Source:
    arrays = embedded.read()
    size = image_size or embedded.IMAGE_SHAPE[0]

    def split(images: np.ndarray, labels: np.ndarray) -> pipeline.IndexedSplit:
        return pipeline.IndexedSplit(pipeline.fetch_from_memory(images, labels, size), len(labels))

    return _Source(
        train=split(arrays.train_images, arrays.train_labels),
        validation=split(arrays.test_images, arrays.test_labels),
        image_shape=(size, size, 1),
        num_classes=embedded.NUM_CLASSES,
    )


def _open_synthetic(
    batch_size: int,
    seed: int,
    image_size: int | None,
    num_classes: int | None,
    num_examples: int | None,
) -> _Source:
    _check_at_least("num_classes", num_classes, 2)
    _check_at_least("num_examples", num_examples, 1)
    size = image_size or synthetic.DEFAULT_IMAGE_SIZE
    classes = num_classes or synthetic.DEFAULT_NUM_CLASSES
    num_train = num_examples or synthetic.DEFAULT_NUM_EXAMPLES

    def split(first: int, count: int) -> pipeline.IndexedSplit:
        return synthetic.make_split(
            seed=seed, image_size=size, num_classes=classes, first=first, num_examples=count
        )

    return _Source(
        train=split(0, num_train),
        validation=split(num_train, max(num_train // 4, batch_size)),
        image_shape=(size, size, synthetic.NUM_CHANNELS),
        num_classes=classes,
    )


def _open_tfds(
    name: str, data_dir: str | None, image_size: int | None, deterministic: bool
) -> _Source:
    # Imported here, as they import TFDS.
    from tfamp.data import tfds_prepare, tfds_sets

    builder = tfds_prepare.find_builder(name, data_dir, other_names=NAMES)
    tfds_prepare.prepare(builder)
    images = tfds_sets.open_images(builder, image_size, deterministic)
    return _Source(images.train, images.validation, images.image_shape, images.num_classes)


def _statistics(name: str, num_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel."""
    if re.split("[/:]", name)[0].lower() in (embedded.NAME, "fashion_mnist"):
        return _FASHION_MNIST
    return _IMAGENET if num_channels == 3 else _OTHER_GREY


def _check_at_least(name: str, value: int | None, minimum: int) -> None:
    if value is not None and value < minimum:
        raise errors.InputError(f"{setting(name, value)}: it must be {minimum} or more.")


def _check_batch_fits(batch_size: int, image_size: int | None) -> None:
    # Otherwise the allocation fails only after minutes, or takes the machine down.
    needed = 4 * batch_size * (image_size or 0) ** 2
    there = _host_bytes()
    if needed > there:
        raise errors.InputError(
            f"{setting('image_size', image_size)}: a batch of {batch_size} float32 images of that "
            f"size takes {needed / 2**30:,.0f} GiB and more, and this machine has "
            f"{there / 2**30:,.0f} GiB. Set a smaller {setting('image_size')} or "
            f"{setting('batch_size')}."
        )


def _refuse_synthetic_only(dataset: str, name: str, value: int | None) -> None:
    if value is not None:
        own = setting("dataset", synthetic.NAME)
        raise errors.InputError(
            f"{setting(name, value)} does not go with {setting('dataset', dataset)}, which has "
            f"its own; it is for {own}. Leave {setting(name)} out, or set {own}."
        )


def _host_bytes() -> int:
    """The memory that this machine has, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
