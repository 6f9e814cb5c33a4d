"""Models that compute in float16 without Keras noticing, as a user may write them."""

import keras


def policy_map(input_shape, num_classes):
    """Its convolution's policy comes from a map; the rest has the global policy."""
    policies = keras.dtype_policies.DTypePolicyMap("float32")
    policies["half_conv"] = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, dtype=policies, name="half_conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32")(x))


def one_layer(input_shape, num_classes):
    """One layer is set to float16 by hand."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, dtype="mixed_float16", name="half_conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32")(x))


def nested(input_shape, num_classes):
    """The float16 layer is inside a model inside the model."""
    inner = keras.Sequential(
        [keras.layers.Conv2D(4, 3, strides=2, dtype="mixed_float16", name="half_conv")],
        name="block",
    )
    inputs = keras.Input(input_shape)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(inner(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32")(x))


def plain(input_shape, num_classes):
    """Takes the global policy, with a float32 head."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, name="half_conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32")(x))
