"""ResNets: the CIFAR form, and the ImageNet form with a stem for large or for small images.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016
(arXiv 1512.03385): table 1 for ResNet-18 and ResNet-50, section 4.2 for ResNet-20.

One name means one block structure and one set of layer names at every image size, so that a
regular expression over layer paths written for small images holds for large ones:

    stem_conv  stem_norm  stem_relu  (stem_pool)
    stageS_blockB_{conv1, norm1, relu1, conv2, norm2, ..., shortcut_*, add, out}
    pool  head
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import keras

from tfamp.models import head

# Up to this side the stem keeps the resolution: a 7x7 stride-2 convolution and a pooling
# would leave 32 pixels with 1x1 maps in the last stage.
SMALL_IMAGE_SIDE = 64

# Keras' default momentum of 0.99 has two costs here: statistics that lag for hundreds of steps
# in a short run, and under pure bfloat16 (8 bit significand) updates so small that they round
# to nothing. 0.9 is what the reference implementations use.
_NORM_MOMENTUM = 0.9
_NORM_EPSILON = 1e-5
_KERNEL_INITIALIZER = "he_normal"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One column of a table in the paper; `run/catalogue.py` has them.

    Attributes:
        filters: Width of each stage. Multiples of 8 throughout, as Tensor Cores want them.
        blocks: Residual blocks in each stage.
        bottleneck: Whether a block is 1x1, 3x3, 1x1 with a fourfold output, not 3x3, 3x3.
        is_cifar_form: Whether it is a network of section 4.2: the stem keeps the resolution at
            every image size, and shortcuts that change shape have no parameters (option A of
            section 3.3), not a 1x1 convolution (option B).
    """

    filters: tuple[int, ...]
    blocks: tuple[int, ...]
    bottleneck: bool = False
    is_cifar_form: bool = False


@keras.saving.register_keras_serializable(package="tfamp")
class PaddedShortcut(keras.layers.Layer):
    """The shortcut without parameters: every `stride`-th pixel, channels filled up with zeros.

    Option A of He et al. 2016, section 3.3, which the CIFAR networks of section 4.2 use
    throughout.

    Args:
        filters: Channels of the output; no fewer than those of the input.
        stride: Step over height and width.
        **kwargs: What every Keras layer takes.
    """

    def __init__(self, filters: int, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride

    def call(self, inputs: Any) -> Any:
        """Maps `(batch, h, w, c)` to `(batch, ceil(h / stride), ceil(w / stride), filters)`."""
        missing = self.filters - inputs.shape[-1]
        before = missing // 2
        kept = inputs[:, :: self.stride, :: self.stride, :]
        return keras.ops.pad(kept, [[0, 0], [0, 0], [0, 0], [before, missing - before]])

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}


def build(
    name: str, sizes: Sizes, input_shape: tuple[int, int, int], num_classes: int
) -> keras.Model:
    """Builds a ResNet under the global precision policy.

    A network of the ImageNet form is a keras-cv backbone above 64 pixels. Up to 64 pixels, and for
    the CIFAR form always, the stem is one 3x3 convolution without stride or pooling.

    Args:
        name: The model's name.
        sizes: Its sizes.
        input_shape: Height, width, channels; sides of 8 pixels or more.
        num_classes: The number of logits.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, num_classes)` float32 logits.
    """
    images = keras.Input(input_shape, name="image")
    if sizes.is_cifar_form or max(input_shape[:2]) <= SMALL_IMAGE_SIDE:
        features = _small_image_trunk(images, sizes)
    else:
        features = _keras_cv_trunk(images, sizes)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    logits = head.classifier(features, num_classes, kernel_initializer="glorot_uniform")
    return keras.Model(images, logits, name=name)


def _small_image_trunk(images: Any, sizes: Sizes) -> Any:
    """Runs a full-resolution 3x3 stem and the stages; each stage but the first halves it."""
    x = _conv_norm(images, sizes.filters[0], 3, 1, "stem_conv", "stem_norm")
    x = keras.layers.ReLU(name="stem_relu")(x)
    for stage, (filters, blocks) in enumerate(
        zip(sizes.filters, sizes.blocks, strict=True), start=1
    ):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, sizes, filters, stride, f"stage{stage}_block{block}")
    return x


def _block(x: Any, sizes: Sizes, filters: int, stride: int, name: str) -> Any:
    """Adds one residual block: normalisation after each convolution, ReLU after the sum."""
    # The stride sits in the first convolution, as in table 1 and in keras-cv.
    if sizes.bottleneck:
        convolutions = [(filters, 1, stride), (filters, 3, 1), (4 * filters, 1, 1)]
    else:
        convolutions = [(filters, 3, stride), (filters, 3, 1)]
    width = convolutions[-1][0]
    shortcut = x
    if stride > 1 or x.shape[-1] != width:
        if sizes.is_cifar_form:
            shortcut = PaddedShortcut(width, stride, name=f"{name}_shortcut_pad")(x)
        else:
            shortcut = _conv_norm(
                x, width, 1, stride, f"{name}_shortcut_conv", f"{name}_shortcut_norm"
            )
    for number, (channels, kernel_size, step) in enumerate(convolutions, start=1):
        x = _conv_norm(
            x, channels, kernel_size, step, f"{name}_conv{number}", f"{name}_norm{number}"
        )
        if number < len(convolutions):
            x = keras.layers.ReLU(name=f"{name}_relu{number}")(x)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_out")(x)


def _conv_norm(
    x: Any, filters: int, kernel_size: int, stride: int, conv_name: str, norm_name: str
) -> Any:
    """Convolves without bias, which the normalisation's offset would cancel, and normalises."""
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_KERNEL_INITIALIZER,
        name=conv_name,
    )(x)
    return keras.layers.BatchNormalization(
        momentum=_NORM_MOMENTUM, epsilon=_NORM_EPSILON, name=norm_name
    )(x)


def _keras_cv_trunk(images: Any, sizes: Sizes) -> Any:
    """Runs keras-cv's backbone, with our layer names and initial values.

    The parametrised class is used because the named presets ask a model hub even when no
    weights are wanted, and fail without a network.
    """
    import keras_cv

    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=list(sizes.filters),
        stackwise_blocks=list(sizes.blocks),
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=False,
        block_type="block" if sizes.bottleneck else "basic_block",
        input_shape=tuple(images.shape[1:]),
    )
    # Keras before 3.13 would call ResNetBackbone's own constructor to make the clone.
    plain = keras.Model(backbone.input, backbone.output)
    trunk = keras.models.clone_model(plain, input_tensors=images, clone_function=_renamed_layer)
    return trunk.output


def _renamed_layer(layer: keras.Layer) -> keras.Layer:
    """Makes a fresh layer like keras-cv's, under this module's name and settings."""
    config = layer.get_config()
    config["name"] = _layer_name(layer.name)
    if isinstance(layer, keras.layers.Conv2D):
        config["kernel_initializer"] = _KERNEL_INITIALIZER
    elif isinstance(layer, keras.layers.BatchNormalization):
        config |= {"momentum": _NORM_MOMENTUM, "epsilon": _NORM_EPSILON}
    return type(layer).from_config(config)


def _layer_name(keras_cv_name: str) -> str:
    """Translates a name: `v2_stack_1_block1_2_bn` (from 0) is `stage2_block1_norm2` (from 1)."""
    name = keras_cv_name.replace("_bn", "_norm")
    stem = re.fullmatch(r"(?:conv1|pool1)_(\w+)", name)
    if stem:
        return f"stem_{stem[1]}"
    residual = re.fullmatch(r"v2_stack_(\d+)_block(\d+)_(\w+)", name)
    if residual is None:
        return keras_cv_name
    part = residual[3]
    number, _, kind = part.partition("_")
    if number == "0":
        part = f"shortcut_{kind}"
    elif number.isdigit():
        part = f"{kind}{number}"
    return f"stage{int(residual[1]) + 1}_block{residual[2]}_{part}"
