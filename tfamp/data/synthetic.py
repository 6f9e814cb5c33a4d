"""`synthetic`: learnable images made by TensorFlow operations, of any size and number.

An image is a coarse colour pattern of its class, a coarse pattern of its own four times as strong,
and fine noise. A linear probe learns it well but not perfectly, so that a loss in precision shows.
Example i is a function of (seed, i) alone, drawn with the Philox generator from integers, so it is
the same on every machine and in every epoch.
"""

from __future__ import annotations

import tensorflow as tf

from tfamp.data import pipeline

DEFAULT_IMAGE_SIZE = 32
DEFAULT_NUM_CLASSES = 10
DEFAULT_NUM_EXAMPLES = 2048
NUM_CHANNELS = 3

_GRID = 8  # Height and width of the coarse patterns.
_CLASS_AMPLITUDE = 22.0  # Grey levels, of 255.
_OWN_AMPLITUDE = 88.0
_NOISE_AMPLITUDE = 16.0

_CLASS_STREAM, _OWN_STREAM, _NOISE_STREAM = 1, 2, 3


def open_source(wanted: pipeline.Wanted) -> pipeline.Source:
    """Opens a set of any size and number; its validation split has a quarter as many examples."""
    size = wanted.image_size or DEFAULT_IMAGE_SIZE
    classes = wanted.num_classes or DEFAULT_NUM_CLASSES
    num_train = wanted.num_examples or DEFAULT_NUM_EXAMPLES

    def split(first: int, count: int) -> pipeline.IndexedSplit:
        return make_split(
            seed=wanted.seed, image_size=size, num_classes=classes, first=first, num_examples=count
        )

    return pipeline.Source(
        train=split(0, num_train),
        validation=split(num_train, max(num_train // 4, wanted.batch_size)),
        image_shape=(size, size, NUM_CHANNELS),
        num_classes=classes,
    )


def make_split(
    *, seed: int, image_size: int, num_classes: int, first: int, num_examples: int
) -> pipeline.IndexedSplit:
    """Makes a split: the examples `first` to `first + num_examples - 1` of the seed.

    A split of at most `pipeline.MEMORY_LIMIT_BYTES` is generated once and kept as uint8; a larger
    one is generated batch by batch.

    Args:
        seed: Chooses the patterns and the noise.
        image_size: Height and width in pixels.
        num_classes: Example i is of class i modulo `num_classes`.
        first: The index of the first example.
        num_examples: How many examples.
    """

    def generate(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return make_examples(
            indices + first, seed=seed, image_size=image_size, num_classes=num_classes
        )

    if num_examples * image_size * image_size * NUM_CHANNELS > pipeline.MEMORY_LIMIT_BYTES:
        return pipeline.IndexedSplit(generate, num_examples)
    chunks = tf.data.Dataset.range(num_examples).batch(64).map(generate, tf.data.AUTOTUNE)
    with tf.device("/CPU:0"):
        images, labels = zip(*chunks, strict=True)
        fetch = pipeline.fetch_from_memory(
            tf.concat(images, axis=0), tf.concat(labels, axis=0), image_size
        )
    return pipeline.IndexedSplit(fetch, num_examples)


def make_examples(
    indices: tf.Tensor, *, seed: int, image_size: int, num_classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes the examples of the given indices.

    Args:
        indices: int64 [batch].
        seed: See `make_split`.
        image_size: See `make_split`.
        num_classes: See `make_split`.

    Returns:
        Images, uint8 [batch, image_size, image_size, 3], and labels, int64 [batch].
    """
    labels = indices % num_classes
    coarse_shape = (_GRID, _GRID, NUM_CHANNELS)
    num_noise_words = -(-image_size * image_size * NUM_CHANNELS // 4)

    def draw(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        own = _signed_uniform(coarse_shape, _seed(seed, _OWN_STREAM, index))
        # Four noise bytes a random word: the draws are most of the cost at 224 pixels.
        words = tf.random.stateless_uniform(
            (num_noise_words,),
            seed=_seed(seed, _NOISE_STREAM, index),
            minval=None,
            maxval=None,
            dtype=tf.uint32,
            alg="philox",
        )
        noise = tf.reshape(tf.bitcast(words, tf.uint8), (-1,))
        noise = noise[: image_size * image_size * NUM_CHANNELS]
        return own, tf.reshape(noise, (image_size, image_size, NUM_CHANNELS))

    own, noise = tf.map_fn(
        draw, indices, fn_output_signature=(tf.float32, tf.uint8), parallel_iterations=1
    )
    class_patterns = _signed_uniform((num_classes, *coarse_shape), _seed(seed, _CLASS_STREAM, 0))
    coarse = _CLASS_AMPLITUDE * tf.gather(class_patterns, labels) + _OWN_AMPLITUDE * own
    fine = tf.image.resize(coarse, (image_size, image_size))
    fine += (_NOISE_AMPLITUDE / 128.0) * (tf.cast(noise, tf.float32) - 127.5)
    images = tf.cast(tf.clip_by_value(tf.round(127.5 + fine), 0.0, 255.0), tf.uint8)
    return tf.ensure_shape(images, (None, image_size, image_size, NUM_CHANNELS)), labels


def _seed(seed: int, stream: int, index: tf.Tensor | int) -> tf.Tensor:
    base = tf.constant([seed, stream], tf.int64)
    return tf.random.experimental.stateless_fold_in(base, tf.cast(index, tf.int64), alg="philox")


def _signed_uniform(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, -1.0, 1.0, tf.float32, alg="philox")
