"""A model of your own for the trainer.

    scripts/train.sh --model=experiments/my_model.py:build --policy=mixed_float16

The precision policy is set before `build` is called, so a layer takes it unless told otherwise. The
images come normalised, float32, and the loss takes logits.
"""

import keras


def build(input_shape, num_classes):
    """A small convolutional network.

    Args:
        input_shape: (height, width, channels) of an image.
        num_classes: How many logits it ends in.
    """
    images = keras.Input(input_shape)
    features = images
    for filters in (16, 32, 64):
        features = keras.layers.Conv2D(filters, 3, strides=2, use_bias=False)(features)
        features = keras.layers.BatchNormalization()(features)
        features = keras.layers.ReLU()(features)
    features = keras.layers.GlobalAveragePooling2D()(features)
    logits = keras.layers.Dense(num_classes, dtype="float32")(features)
    return keras.Model(images, logits)
