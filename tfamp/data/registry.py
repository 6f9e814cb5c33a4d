"""The door to the data: a name and a few values in, an `ImageData` out."""

from __future__ import annotations

import dataclasses
import importlib
import os

import tensorflow as tf

from tfamp.data import augment as augmentation
from tfamp.data import pipeline
from tfamp.run import catalogue
from tfamp.run.catalogue import DATASETS, NamedDataset
from tfamp.run.config import declarations
from tfamp.run.errors import InputError, setting

# Mean and standard deviation of each channel, of pixels in [0, 1], where a set has none of its own.
_USUAL_STATISTICS = {
    1: ((0.5,), (0.25,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's.
}
# What opens a set that is not in the catalogue.
_TFDS = NamedDataset("tfds_sets", "one of TFDS's")


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


def load(
    dataset: str,
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
        dataset: A name in the catalogue, or a TFDS image classification set.
        batch_size: Examples in a training batch, over all replicas.
        seed: Of order and augmentation, and of the content of `synthetic`.
        image_size: Height and width in pixels; None for the native size (`synthetic`: 32).
        data_dir: Where TFDS keeps its sets; None for its default.
        num_classes: Of `synthetic` only; 10 by default.
        num_examples: Training examples, of `synthetic` only; 2,048 by default. Its validation split
            has a quarter as many, and at least a batch.
        augment: One of `config.AUGMENTATIONS`, for the training stream.
        deterministic: Decodes JPEG files by the exact method instead of the fastest. The order
            and the augmentation are reproducible either way.
        start_step: The training stream begins where that of an unbroken run would be after this
            many steps.

    Raises:
        InputError: A value is out of range or does not fit the set, or the set cannot be had.
    """
    catalogue.check_dataset("dataset", dataset)
    own = {"num_classes": num_classes, "num_examples": num_examples}
    values = {"batch_size": batch_size, "image_size": image_size, "augment": augment, **own}
    for name, value in values.items():
        if value is not None:
            declarations()[name].kind.check(name, value)
    _check_batch_fits(batch_size, image_size)
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}; it counts steps from 0.")
    row = DATASETS.get(dataset, _TFDS)
    _refuse_foreign(dataset, row, own)
    wanted = pipeline.Wanted(
        dataset, batch_size, seed, image_size, data_dir, num_classes, num_examples, deterministic
    )
    # Imported here: some import TFDS.
    source = importlib.import_module(f"tfamp.data.{row.module}").open_source(wanted)
    num_train, num_validation = source.train.num_examples, source.validation.num_examples
    if batch_size > num_train:
        raise InputError(
            f"{setting('batch_size', batch_size)} is more than the {num_train} training examples "
            f"of {setting('dataset', dataset)}. A batch takes at most all of them. Set "
            f"{setting('batch_size')} to {num_train} or less."
        )
    mean, std = source.statistics or _USUAL_STATISTICS[source.image_shape[-1]]
    finish = pipeline.Finish(source.image_shape, source.num_classes, mean, std)
    return ImageData(
        name=dataset,
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


def _check_batch_fits(batch_size: int, image_size: int | None) -> None:
    # Otherwise the allocation fails only after minutes, or takes the machine down.
    needed = 4 * batch_size * (image_size or 0) ** 2
    there = _host_bytes()
    if needed > there:
        raise InputError(
            f"{setting('image_size', image_size)}: a batch of {batch_size} float32 images of that "
            f"size takes {needed / 2**30:,.0f} GiB and more, and this machine has "
            f"{there / 2**30:,.0f} GiB. Set a smaller {setting('image_size')} or "
            f"{setting('batch_size')}."
        )


def _refuse_foreign(dataset: str, row: NamedDataset, values: dict[str, int | None]) -> None:
    """Refuses a setting of another set's."""
    for name, value in values.items():
        if value is None or name in row.settings:
            continue
        takers = [other for other, each in DATASETS.items() if name in each.settings]
        raise InputError(
            f"{setting(name, value)} does not go with {setting('dataset', dataset)}, which has its "
            f"own; it is for {' and '.join(setting('dataset', other) for other in takers)}. Leave "
            f"{setting(name)} out, or set {setting('dataset', takers[0])}."
        )


def _host_bytes() -> int:
    """The memory that this machine has, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
