"""Image classification sets of TensorFlow Datasets.

A set that fits into `pipeline.MEMORY_LIMIT_BYTES` is decoded once and held in memory. A larger one
is read from its TFRecord files: per epoch the files in a new order, then a shuffle buffer, both
drawn from (seed, epoch).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfamp.data import embedded, pipeline, tfds_prepare
from tfamp.run import errors
from tfamp.run.catalogue import DATASETS
from tfamp.run.errors import setting

# Records, still encoded: about 1 GB of ImageNet.
_SHUFFLE_BUFFER = 10_000
_FILES_AT_ONCE = 16

# Of the sets whose mean and standard deviation are not the usual ones.
_STATISTICS = {"fashion_mnist": embedded.STATISTICS}

Decode = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def open_source(wanted: pipeline.Wanted) -> pipeline.Source:
    """Finds a set of TFDS's, prepares it where it is not, and opens it.

    Raises:
        InputError: It is unknown, cannot be had, or is no set of images of one size.
    """
    builder = tfds_prepare.find_builder(wanted.dataset, wanted.data_dir, other_names=DATASETS)
    tfds_prepare.prepare(builder)
    return open_images(builder, wanted.image_size, wanted.deterministic)


def open_images(builder: Any, image_size: int | None, deterministic: bool) -> pipeline.Source:
    """Opens a prepared set.

    Args:
        builder: A prepared `tfds.core.DatasetBuilder` with features `image` and `label`.
        image_size: Height and width; None for the native size.
        deterministic: Decodes JPEG by the exact method, which all builds of TensorFlow share,
            instead of the fastest.

    Raises:
        InputError: The images vary in size or are not square and `image_size` is None, a split is
            missing, or the files are not TFRecord files.
    """
    name = builder.info.full_name
    image_size = _checked_image_size(builder, image_size)
    split_names = _checked_splits(builder)
    num_channels = builder.info.features["image"].shape[-1]
    image_shape = (image_size, image_size, num_channels)
    decode = _decoder(builder, image_size, deterministic)

    splits = [
        StreamedSplit(
            tuple(str(path) for path in builder.info.splits[split].filepaths),
            decode,
            builder.info.splits[split].num_examples,
        )
        for split in split_names
    ]
    for split, split_name in zip(splits, split_names, strict=True):
        if split.num_examples == 0:
            raise errors.InputError(f"Split {split_name!r} of {setting('dataset', name)} is empty.")
    num_bytes = sum(split.num_examples for split in splits) * int(np.prod(image_shape))
    is_small = num_bytes <= pipeline.MEMORY_LIMIT_BYTES
    train, validation = [split.in_memory(image_shape) if is_small else split for split in splits]
    return pipeline.Source(
        train,
        validation,
        image_shape,
        builder.info.features["label"].num_classes,
        _STATISTICS.get(builder.name),
    )


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """A split read from TFRecord files.

    Attributes:
        files: Paths of the shards.
        decode: Maps one serialised example to an image (uint8 [height, width, channels]) and a
            label (int64 scalar).
        num_examples: How many records the files hold together.
        shuffle_buffer: Records among which the next is drawn, at most.
    """

    files: tuple[str, ...]
    decode: Decode
    num_examples: int
    shuffle_buffer: int = _SHUFFLE_BUFFER

    def train_batches(self, batch_size: int, seed: int, start_step: int) -> tf.data.Dataset:
        """See `pipeline.Split`."""
        steps_per_epoch = self.num_examples // batch_size

        def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
            # Else the kernel's first seed would be the global one, and the order a function of it.
            # In a function that is being traced this sets the seed of its graph only.
            # (Not 0: with that, shuffle() compares its own seed, a tensor, in Python.)
            tf.random.set_seed(1)
            order_seed = tf.random.experimental.stateless_fold_in(
                tf.constant([seed, 0], tf.int64), epoch
            )
            records = self._records(_shuffled(self.files, order_seed))
            # shuffle() takes one number; 31 bits, as it keeps no more.
            buffer_seed = tf.random.stateless_uniform((), order_seed, 1, 2**31 - 1, tf.int64)
            records = records.shuffle(min(self.shuffle_buffer, self.num_examples), buffer_seed)
            return records.take(steps_per_epoch * batch_size)

        records = tf.data.Dataset.counter(start_step // steps_per_epoch).flat_map(epoch_records)
        # Skipped before they are decoded.
        records = records.skip(start_step % steps_per_epoch * batch_size)
        decoded = records.map(self.decode, num_parallel_calls=tf.data.AUTOTUNE)
        batches = decoded.batch(batch_size, drop_remainder=True)
        batches = batches.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
        return batches.enumerate(start_step).map(lambda step, batch: (step, *batch))

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        """See `pipeline.Split`."""
        decoded = self._in_order().map(self.decode, num_parallel_calls=tf.data.AUTOTUNE)
        num_batches = -(-self.num_examples // batch_size)
        is_exact = self.num_examples % batch_size == 0
        batches = decoded.batch(batch_size, drop_remainder=is_exact)
        return batches.apply(tf.data.experimental.assert_cardinality(num_batches))

    def in_memory(self, image_shape: tuple[int, int, int]) -> pipeline.IndexedSplit:
        """Decodes everything, once.

        Args:
            image_shape: (height, width, channels) of what `decode` returns.
        """
        images = np.empty((self.num_examples, *image_shape), np.uint8)
        labels = np.empty((self.num_examples,), np.int64)
        start = 0
        for image_batch, label_batch in self.validation_batches(1024).prefetch(tf.data.AUTOTUNE):
            stop = start + len(label_batch)
            images[start:stop], labels[start:stop] = image_batch.numpy(), label_batch.numpy()
            start = stop
        fetch = pipeline.fetch_from_memory(images, labels, image_shape[0])
        return pipeline.IndexedSplit(fetch, self.num_examples)

    def _in_order(self) -> tf.data.Dataset:
        return self._records(tf.constant(self.files))

    @staticmethod
    def _records(files: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            lambda file: tf.data.TFRecordDataset(file, buffer_size=1 << 20),
            cycle_length=_FILES_AT_ONCE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )


def _shuffled(files: tuple[str, ...], seed: tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_shuffle(tf.constant(files), seed)


def _decoder(builder: Any, image_size: int, deterministic: bool) -> Decode:
    import tensorflow_datasets as tfds

    features = builder.info.features
    image_feature = features["image"]
    is_exact_jpeg = deterministic and image_feature.encoding_format == "jpeg"
    needed = tfds.decode.PartialDecoding({"image": True, "label": True}).extract_features(features)

    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        decoders = {"image": tfds.decode.SkipDecoding()} if is_exact_jpeg else None
        example = needed.deserialize_example(record, decoders=decoders)
        image = example["image"]
        if is_exact_jpeg:
            image = tf.io.decode_jpeg(
                image, channels=image_feature.shape[-1], dct_method="INTEGER_ACCURATE"
            )
            image.set_shape(image_feature.shape)
        image = pipeline.resize(image, image_size)
        image.set_shape((image_size, image_size, image_feature.shape[-1]))
        return image, tf.cast(example["label"], tf.int64)

    return decode


def _checked_image_size(builder: Any, image_size: int | None) -> int:
    height, width, _ = builder.info.features["image"].shape
    if image_size is not None:
        return image_size
    if height is None or height != width:
        what = "vary in size" if height is None or width is None else f"are {height}x{width}"
        raise errors.InputError(
            f"The images of {setting('dataset', builder.info.full_name)} {what}, and no image size "
            f"was given. tfamp trains on square images of one size. Set {setting('image_size')}, "
            f"for example {setting('image_size', 160)}."
        )
    return int(height)


def _checked_splits(builder: Any) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    name, splits = builder.info.full_name, builder.info.splits
    validation = next((split for split in ("validation", "test") if split in splits), None)
    if "train" not in splits or validation is None:
        raise errors.InputError(
            f"{setting('dataset', name)} has the splits {', '.join(splits)}. tfamp needs 'train' "
            f"and one of 'validation' and 'test'. Set {setting('dataset')} to another set."
        )
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise errors.InputError(
            f"{setting('dataset', name)} in {builder.data_path} is stored as "
            f"{builder.info.file_format.value}. tfamp reads tfrecord. Prepare it with `tfds build "
            f"--file_format=tfrecord`, or set {setting('data_dir')} to where that was done."
        )
    return "train", validation
