"""Vision transformers in the three sizes of DeiT.

Sources: Touvron et al., "Training data-efficient image transformers & distillation through
attention", ICML 2021 (arXiv 2012.12877), table 1, for the sizes; Dosovitskiy et al., "An Image
is Worth 16x16 Words", ICLR 2021 (arXiv 2010.11929), section 3.1, for the network.
"""

from __future__ import annotations

import dataclasses

import keras

from tfamp.models import head
from tfamp.run.errors import InputError, setting

_DEPTH = 12
_MLP_RATIO = 4
# Dosovitskiy et al. use 1e-6; Keras' default is 1e-3.
_NORM_EPSILON = 1e-6

# Largest image side, and the patch side up to there. The patch grows with the image, so that
# 16, 28, 32 and 64 pixels all give 49 to 64 patches; beyond, the paper's 16.
_PATCH_SIZES = ((16, 2), (32, 4), (64, 8))
_LARGE_PATCH_SIZE = 16


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A row of table 1; `run/catalogue.py` has them. Each head is 64 wide.

    Attributes:
        width: Width of a token.
        num_heads: Attention heads in each encoder.
    """

    width: int
    num_heads: int


def patch_size(height: int, width: int) -> int:
    """Returns the side of a patch: 2 up to 16 pixels, 4 up to 32, 8 up to 64, 16 above.

    Args:
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        The side of a square patch in pixels; it divides both sides.

    Raises:
        InputError: The patch does not divide the image.
    """
    side = max(height, width)
    patch = next((size for limit, size in _PATCH_SIZES if side <= limit), _LARGE_PATCH_SIZE)
    if height % patch or width % patch:
        # Rounding down from just above a limit lands on it, where the smaller patch fits too.
        lower = max(side // patch * patch, patch)
        raise InputError(
            f"Images of {height}x{width} pixels cannot be cut into the {patch}x{patch} patches "
            f"that a ViT uses at this size. Both sides must be multiples of 2 up to 16 pixels, "
            f"of 4 up to 32, of 8 up to 64, of 16 above. "
            f"Set {setting('image_size', lower, _shape(lower))} or "
            f"{setting('image_size', lower + patch, _shape(lower + patch))}."
        )
    return patch


def _shape(side: int) -> str:
    return f"input_shape=({side}, {side}, ...)"


def build(
    name: str, sizes: Sizes, input_shape: tuple[int, int, int], num_classes: int
) -> keras.Model:
    """Builds a ViT under the global precision policy.

    Pre-norm encoders, a class token, a final normalisation, no dropout. Layers are named
    `patch_embedding`, `encoder_0` to `encoder_11`, `class_token`, `final_norm`, `head`.

    Args:
        name: The model's name.
        sizes: Its sizes.
        input_shape: Height, width, channels.
        num_classes: The number of logits.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, num_classes)` float32 logits.

    Raises:
        InputError: The patch does not divide the image (see `patch_size`).
    """
    patch = patch_size(*input_shape[:2])

    from tfamp.models import vit_layers

    images = keras.Input(input_shape, name="image")
    x = vit_layers.PatchEmbedding(sizes.width, patch, name="patch_embedding")(images)
    for index in range(_DEPTH):
        x = vit_layers.TransformerEncoder(
            project_dim=sizes.width,
            num_heads=sizes.num_heads,
            mlp_dim=_MLP_RATIO * sizes.width,
            layer_norm_epsilon=_NORM_EPSILON,
            name=f"encoder_{index}",
        )(x)
    # Normalisation is per token, so the one that counts can be taken out first.
    x = vit_layers.ClassToken(name="class_token")(x)
    x = keras.layers.LayerNormalization(epsilon=_NORM_EPSILON, name="final_norm")(x)
    logits = head.classifier(x, num_classes, kernel_initializer=vit_layers.truncated_normal())
    return keras.Model(images, logits, name=name)
