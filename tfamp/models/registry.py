"""From the value of --model to a Keras model.

Checking a name costs nothing; Keras and the networks are imported when one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfamp.models import user_model
from tfamp.run.errors import InputError, setting, unknown_name

if TYPE_CHECKING:
    import keras

MODEL_NAMES = ("resnet20", "resnet18", "resnet50", "vit_tiny", "vit_small", "vit_base")

# Three halvings of 8 pixels leave one.
MIN_IMAGE_SIDE = 8


def check_name(name: str) -> None:
    """Refuses a model that cannot exist, before anything slow is imported.

    Args:
        name: The value of --model: one of `MODEL_NAMES`, or `path/to/file.py:function`.

    Raises:
        InputError: The name is unknown, or the file is absent, unreadable or without function.
    """
    if user_model.is_user_model(name):
        user_model.check_name(name)
    elif name not in MODEL_NAMES:
        raise unknown_name("model", name, (*MODEL_NAMES, "path/to/file.py:function"), "model")


def build(name: str, input_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the model under the global precision policy, which the caller has set.

    Args:
        name: The value of --model: one of `MODEL_NAMES`, or `path/to/file.py:function`.
        input_shape: Height, width, channels of one image.
        num_classes: The number of logits, 2 or more.

    Returns:
        A built model from images `(batch, *input_shape)` to logits `(batch, num_classes)`,
        float32 for a named model. Layer names are the same at every build in a process.

    Raises:
        InputError: The model is unknown, or does not take these images.
    """
    check_name(name)
    if num_classes < 2:
        raise InputError(
            f"{setting('num_classes', num_classes)}: a classifier needs 2 classes or more."
        )
    if user_model.is_user_model(name):
        return user_model.build(name, input_shape, num_classes)

    height, width, _ = input_shape
    if min(height, width) < MIN_IMAGE_SIDE:
        side = MIN_IMAGE_SIDE
        raise InputError(
            f"Images of {height}x{width} pixels are too small for {setting('model', name)}, which "
            f"takes {side} pixels a side or more. Set "
            f"{setting('image_size', side, f'input_shape=({side}, {side}, ...)')} or more."
        )
    if name.startswith("vit"):
        from tfamp.models import vit

        return vit.build(name, input_shape, num_classes)
    from tfamp.models import resnet

    return resnet.build(name, input_shape, num_classes)
