"""Augmentation, with keras-cv layers in the main, as pure functions of a batch and a seed.

Images are float32 in [0, 255], before normalisation. The layers are built and traced under the
float32 policy whatever the global policy is: under a float16 one keras-cv's layers raise or, worse,
return NaN silently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfamp.data import stateless
from tfamp.data.pipeline import Augment
from tfamp.precision import keras_internals
from tfamp.precision.policy import global_policy

# Zero padding by 4 pixels of 32: He et al., "Deep Residual Learning", section 4.2.
_PAD_FRACTION = 4 / 32
# N = 2, M = 9 of 30: Cubuk et al., "RandAugment", the ResNet-50 setting for ImageNet (appendix).
_RANDAUGMENT_COUNT = 2
_RANDAUGMENT_MAGNITUDE = 9 / 30
# Zhang et al., "mixup" (0.2 for ImageNet); Yun et al., "CutMix" (1.0).
_MIXUP_ALPHA = 0.2
_CUTMIX_ALPHA = 1.0


def build(name: str, image_shape: tuple[int, int, int]) -> Augment | None:
    """Builds an augmentation.

    Args:
        name: `none`, or one of the others of `config.AUGMENTATIONS`:
            `flip_crop`: horizontal flip, zero padding by an eighth of the size, random crop;
            `randaugment`: two random operations of RandAugment per image;
            `mixup_cutmix`: MixUp or CutMix, either with probability 1/2 per batch.
        image_shape: (height, width, channels), channels 1 or 3.

    Returns:
        None for `none`. Otherwise a function of images (float32 [batch, height, width, channels] in
        [0, 255]), labels (float32 one-hot [batch, num_classes]) and a seed (int64 [2]), which
        returns augmented images and labels of the same shapes and dtypes.
    """
    if name == "none":
        return None
    with global_policy("float32"):
        augment = MAKERS[name](image_shape)

    def augment_in_float32(
        images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # Runs while tf.data traces: inner layers and autocasts read the global policy there.
        with global_policy("float32"):
            return augment(images, labels, seed)

    return augment_in_float32


def _flip_crop(image_shape: tuple[int, int, int]) -> Augment:
    # Plain operations: at 224 pixels on two cores they make 2,800 images a second, keras-cv's
    # RandomFlip and RandomCrop 250, as those compute crop, resize and mirror image of every image.
    height, width, _ = image_shape
    generator = stateless.StatelessGenerator()
    pad_y, pad_x = (max(1, round(size * _PAD_FRACTION)) for size in (height, width))

    def augment_one(image_and_seed: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, seed = image_and_seed
        with generator.seeded(seed):
            is_flipped = generator.uniform(()) < 0.5
            top = generator.uniform((), 0, 2 * pad_y + 1, tf.int32)
            left = generator.uniform((), 0, 2 * pad_x + 1, tf.int32)
        image = tf.cond(is_flipped, lambda: tf.reverse(image, axis=[1]), lambda: image)
        padded = tf.pad(image, [[pad_y, pad_y], [pad_x, pad_x], [0, 0]])
        return tf.slice(padded, [top, left, 0], image_shape)

    def augment(
        images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = tf.random.experimental.stateless_split(seed, tf.shape(images)[0])
        images = tf.map_fn(augment_one, (images, seeds), fn_output_signature=tf.float32)
        return images, labels

    return augment


def _randaugment(image_shape: tuple[int, int, int]) -> Augment:
    import keras_cv

    generator = stateless.StatelessGenerator()
    layer = keras_cv.layers.RandAugment(
        value_range=(0, 255),
        augmentations_per_image=_RANDAUGMENT_COUNT,
        magnitude=_RANDAUGMENT_MAGNITUDE,
    )
    stateless.make_stateless(layer, generator)
    is_grey = image_shape[-1] == 1

    def augment_one(image_and_seed: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, seed = image_and_seed
        with generator.seeded(seed):
            return tf.ensure_shape(layer(image), image.shape)

    def augment(
        images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if is_grey:
            images = tf.image.grayscale_to_rgb(images)
        seeds = tf.random.experimental.stateless_split(seed, tf.shape(images)[0])
        # Image by image, a branch runs only the operation that it chose; a vectorised batch runs
        # all ten on every image.
        images = tf.map_fn(augment_one, (images, seeds), fn_output_signature=tf.float32)
        if is_grey:
            images = tf.reduce_mean(images, axis=-1, keepdims=True)
        return images, labels

    return augment


def _mixup_cutmix(image_shape: tuple[int, int, int]) -> Augment:
    generator = stateless.StatelessGenerator()
    mixup, cutmix = _mixup_layer(generator), _cutmix_layer(generator, image_shape)

    def augment(
        images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def apply(layer: Any) -> Callable[[], tuple[tf.Tensor, tf.Tensor]]:
            def branch() -> tuple[tf.Tensor, tf.Tensor]:
                mixed = layer({"images": images, "labels": labels})
                return mixed["images"], mixed["labels"]

            return branch

        with generator.seeded(seed):
            is_mixup = generator.uniform(()) < 0.5
            return tf.cond(is_mixup, apply(mixup), apply(cutmix))

    return augment


def _mixup_layer(generator: stateless.StatelessGenerator) -> Any:
    import keras_cv

    def mix(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        permutation = generator.permutation(images.shape[0])
        weights = generator.beta((images.shape[0],), _MIXUP_ALPHA)
        column = tf.reshape(weights, (-1, 1, 1, 1))
        others = tf.gather(images, permutation)
        return column * images + (1.0 - column) * others, weights, permutation

    return keras_internals.mixing_with(keras_cv.layers.MixUp(alpha=_MIXUP_ALPHA), mix)


def _cutmix_layer(
    generator: stateless.StatelessGenerator, image_shape: tuple[int, int, int]
) -> Any:
    import keras_cv

    height, width, _ = image_shape

    def mix(images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # The label weight is the share of pixels that really stayed, as in the paper's code;
        # keras-cv 0.9 takes the area of the box before the border cuts it.
        batch_size = images.shape[0]
        permutation = generator.permutation(batch_size)
        side = tf.sqrt(1.0 - generator.beta((batch_size, 1), _CUTMIX_ALPHA))
        inside_y, center_y, cut_height = interval(side, height)
        inside_x, center_x, cut_width = interval(side, width)
        is_cut = inside_y[:, :, tf.newaxis] & inside_x[:, tf.newaxis, :]
        kept = 1.0 - tf.reduce_mean(tf.cast(is_cut, tf.float32), axis=(1, 2))
        mixed = tf.where(is_cut[..., tf.newaxis], tf.gather(images, permutation), images)
        return mixed, kept, permutation, center_y, center_x, cut_width, cut_height

    def interval(side: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Draws an interval per image: what it covers (bool [batch, size]), centre, length."""
        length = tf.cast(side * size, tf.int32)
        center = generator.uniform(tf.shape(side), 0, size, tf.int32)
        start = center - length // 2
        positions = tf.range(size)[tf.newaxis, :]
        inside = (positions >= start) & (positions < start + length)
        return inside, center[:, 0], length[:, 0]

    return keras_internals.mixing_with(keras_cv.layers.CutMix(alpha=_CUTMIX_ALPHA), mix)


# What makes each augmentation but none.
MAKERS: dict[str, Callable[[tuple[int, int, int]], Augment]] = {
    "flip_crop": _flip_crop,
    "randaugment": _randaugment,
    "mixup_cutmix": _mixup_cutmix,
}
