"""From the value of --model to a Keras model.

Which models there are says `run/catalogue.py`, a row each. Checking a name costs nothing; Keras and
the networks are imported when one is built.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tfamp.models import user_model
from tfamp.run import catalogue
from tfamp.run.catalogue import MODELS
from tfamp.run.errors import InputError, setting

if TYPE_CHECKING:
    import keras

# Three halvings of 8 pixels leave one.
MIN_IMAGE_SIDE = 8


def check_name(model: str) -> None:
    """Refuses a model that cannot exist, before anything slow is imported.

    Args:
        model: A name in the catalogue, or `path/to/file.py:function`.

    Raises:
        InputError: The name is unknown, or the file is absent, unreadable or without function.
    """
    catalogue.check_model("model", model)
    if catalogue.is_user_model(model):
        user_model.check_file(model)


def build(model: str, input_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the model under the global precision policy, which the caller has set.

    Args:
        model: A name in the catalogue, or `path/to/file.py:function`.
        input_shape: Height, width, channels of one image.
        num_classes: The number of logits, 2 or more.

    Returns:
        A built model from images `(batch, *input_shape)` to logits `(batch, num_classes)`,
        float32 for a named model. Layer names are the same at every build in a process.

    Raises:
        InputError: The model is unknown, or does not take these images.
    """
    check_name(model)
    if num_classes < 2:
        raise InputError(
            f"{setting('num_classes', num_classes)}: a classifier needs 2 classes or more."
        )
    if catalogue.is_user_model(model):
        return user_model.build(model, input_shape, num_classes)

    height, width, _ = input_shape
    side = MIN_IMAGE_SIDE
    if min(height, width) < side:
        raise InputError(
            f"Images of {height}x{width} pixels are too small for {setting('model', model)}, which "
            f"takes {side} pixels a side or more. Set "
            f"{setting('image_size', side, f'input_shape=({side}, {side}, ...)')} or more."
        )
    row = MODELS[model]
    family = importlib.import_module(f"tfamp.models.{row.family}")
    return family.build(model, family.Sizes(**row.sizes), input_shape, num_classes)
