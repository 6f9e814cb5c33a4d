"""A model that builds and compiles in a second, for tests that are not about the model."""

import keras


def tiny(input_shape, num_classes):
    """Two convolutions with batch norm and a float32 head."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv1")(inputs)
    x = keras.layers.BatchNormalization(name="norm1")(x)
    x = keras.layers.Activation("relu", name="relu1")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="conv2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(num_classes, dtype="float32", name="head")(x)
    return keras.Model(inputs, outputs, name="tiny")


def needs_data_that_is_not_there(input_shape, num_classes):
    """Fails as a bug would, not as bad input."""
    raise FileNotFoundError("weights.h5 is not there")


def no_model(input_shape, num_classes):
    """Returns no model."""
    return 42


def too_narrow(input_shape, num_classes):
    """Has one logit too few."""
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(num_classes - 1)(keras.layers.Flatten()(inputs)))
