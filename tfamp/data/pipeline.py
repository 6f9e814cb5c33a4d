"""From examples to batches: the order, the batch sizes, the normalisation.

A split is a source of raw batches (`Split`). What it yields for training is a function of
(seed, step) alone: epoch `e` is a full permutation drawn from (seed, e), batches never straddle an
epoch, and nothing keeps random state, so a run that starts at step k sees what an unbroken run
would have seen from there, whatever the number of threads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

# Sets up to this size live in memory as uint8, decoded and resized once: 60,000 CIFAR images take
# 184 MB. Larger ones are read from their files in every epoch.
MEMORY_LIMIT_BYTES = 512 * 1024 * 1024

# Keeps the augmentation's random numbers apart from those of the order.
_AUGMENT_STREAM = 0x5EED

Fetch = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Augment = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Split(Protocol):
    """Examples of one split, as raw batches.

    Images are uint8 or float32 [batch, height, width, channels] in [0, 255], labels int64 [batch].
    """

    @property
    def num_examples(self) -> int:
        """How many examples there are."""

    def train_batches(self, batch_size: int, seed: int, start_step: int) -> tf.data.Dataset:
        """Yields (step, images, labels) for ever, from `start_step`; step is an int64 scalar."""

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        """Yields (images, labels) once, in order; the last batch may be smaller."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a set is opened with; see `registry.load` for each."""

    dataset: str
    batch_size: int
    seed: int
    image_size: int | None = None
    data_dir: str | None = None
    num_classes: int | None = None
    num_examples: int | None = None
    deterministic: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of square images, opened.

    Attributes:
        train: The training split.
        validation: The split to validate on.
        image_shape: (height, width, channels).
        num_classes: Number of classes.
        statistics: Mean and standard deviation of each channel, of pixels in [0, 1]; None for
            those that are usual for so many channels.
    """

    train: Split
    validation: Split
    image_shape: tuple[int, int, int]
    num_classes: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclasses.dataclass(frozen=True)
class IndexedSplit:
    """A split whose examples can be fetched by index.

    The permutation is evaluated index by index (`index_shuffle`), so no epoch has a start-up cost
    and starting at any step is free.

    Attributes:
        fetch: Maps int64 indices [batch] to (images, labels).
        num_examples: How many there are.
    """

    fetch: Fetch
    num_examples: int

    def train_batches(self, batch_size: int, seed: int, start_step: int) -> tf.data.Dataset:
        """See `Split`."""

        def batch_at(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            indices = shuffled_indices(step, self.num_examples, batch_size, seed)
            return (step, *self.fetch(indices))

        steps = tf.data.Dataset.counter(start_step)
        return steps.map(batch_at, num_parallel_calls=tf.data.AUTOTUNE)

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        """See `Split`."""
        is_exact = self.num_examples % batch_size == 0
        indices = tf.data.Dataset.range(self.num_examples).batch(
            batch_size, drop_remainder=is_exact
        )
        return indices.map(self.fetch, num_parallel_calls=tf.data.AUTOTUNE)


def shuffled_indices(step: tf.Tensor, num_examples: int, batch_size: int, seed: int) -> tf.Tensor:
    """Returns the examples of one training batch.

    Args:
        step: int64 scalar, counted from the start of training.
        num_examples: The size of the split.
        batch_size: At most `num_examples`.
        seed: The seed of the run.

    Returns:
        int64 [batch_size] in [0, num_examples), without repetition within an epoch.
    """
    steps_per_epoch = num_examples // batch_size
    epoch, step_in_epoch = step // steps_per_epoch, step % steps_per_epoch
    positions = step_in_epoch * batch_size + tf.range(batch_size, dtype=tf.int64)
    return tf.random.experimental.index_shuffle(
        positions,
        seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
        max_index=tf.constant(num_examples - 1, tf.int64),
    )


def fetch_from_memory(images: tf.Tensor, labels: tf.Tensor, image_size: int) -> Fetch:
    """Makes the fetch function of a set held in memory.

    Args:
        images: uint8 [n, height, width, channels].
        labels: Integers [n].
        image_size: Height and width of what is fetched; images of another size are resized.
    """
    # Iterators live on the host: constants on an accelerator would be copied back for each.
    with tf.device("/CPU:0"):
        images = tf.constant(images)
        labels = tf.constant(labels, tf.int64)

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return resize(tf.gather(images, indices), image_size), tf.gather(labels, indices)

    return fetch


def resize(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resizes uint8 images [..., height, width, channels] to a square, bilinear with antialias.

    Returns:
        uint8 [..., image_size, image_size, channels]; the same tensor where nothing is to do.
    """
    if images.shape[-3:-1] == (image_size, image_size):
        return images
    resized = tf.image.resize(images, (image_size, image_size), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def validation_batch_size(num_examples: int, batch_size: int) -> int:
    """Chooses the validation batch so that no smaller last batch is left, where it can.

    A second batch shape is a second XLA compile. The largest divisor of `num_examples` up to
    `batch_size` is taken if it is at least half of `batch_size`.
    """
    if num_examples <= batch_size:
        return num_examples
    for divisor in range(batch_size, (batch_size + 1) // 2 - 1, -1):
        if num_examples % divisor == 0:
            return divisor
    return batch_size


@dataclasses.dataclass(frozen=True)
class Finish:
    """Turns raw batches into what a model takes.

    Attributes:
        image_shape: (height, width, channels).
        num_classes: The width of the one-hot labels.
        mean: Per channel, of pixels scaled to [0, 1].
        std: Likewise.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def train(
        self, split: Split, *, batch_size: int, seed: int, start_step: int, augment: Augment | None
    ) -> tf.data.Dataset:
        """Returns the infinite training stream of (images, labels)."""

        def finish(
            step: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.ensure_shape(images, (batch_size, *self.image_shape))
            images, one_hot = tf.cast(images, tf.float32), self._one_hot(labels)
            if augment is not None:
                stream = tf.constant([seed, _AUGMENT_STREAM], tf.int64)
                step_seed = tf.random.experimental.stateless_fold_in(stream, step)
                images, one_hot = augment(images, one_hot, step_seed)
            images = tf.ensure_shape(images, (batch_size, *self.image_shape))
            return self._normalise(images), one_hot

        batches = split.train_batches(batch_size, seed, start_step)
        finished = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        return finished.prefetch(tf.data.AUTOTUNE).with_options(_options())

    def validation(self, split: Split, *, batch_size: int) -> tf.data.Dataset:
        """Returns the finite validation stream of (images, labels), in order."""

        def finish(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.ensure_shape(images, (None, *self.image_shape))
            return self._normalise(tf.cast(images, tf.float32)), self._one_hot(labels)

        size = validation_batch_size(split.num_examples, batch_size)
        finished = split.validation_batches(size).map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        return finished.prefetch(tf.data.AUTOTUNE).with_options(_options())

    def _one_hot(self, labels: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(labels, self.num_classes, dtype=tf.float32)

    def _normalise(self, images: tf.Tensor) -> tf.Tensor:
        """Computes (images / 255 - mean) / std of float32 [batch, height, width, channels]."""
        height, width, num_channels = self.image_shape
        scale = [1.0 / (255.0 * std) for std in self.std]
        offset = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        # Broadcasting along a last axis of 3 costs four times as much as along a whole row.
        rows = tf.reshape(images, (-1, height, width * num_channels))
        rows = rows * tf.constant(scale * width) + tf.constant(offset * width)
        return tf.reshape(
            rows, (-1 if images.shape[0] is None else images.shape[0], *self.image_shape)
        )


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Batches are already processed in parallel; threads inside an operation would fight them.
    options.threading.max_intra_op_parallelism = 1
    # Sharding by file would change the order with the number of workers.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
