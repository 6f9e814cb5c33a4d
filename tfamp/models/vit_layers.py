"""The two keras-cv layers a vision transformer is made of, mended for mixed precision.

Importing this module imports keras-cv, which takes a second: import it where a ViT is built or
loaded, not at the top of a command.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_cv

from tfamp.precision import keras_internals


def truncated_normal() -> keras.initializers.Initializer:
    """Returns a fresh truncated normal of standard deviation 0.02 (DeiT and ViT).

    Fresh each time: a Keras initializer draws its seed when it is made, so that two weights of
    one shape filled by one instance would start out equal.
    """
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable(package="tfamp")
class PatchEmbedding(keras_cv.layers.PatchingAndEmbedding):
    """Cuts an image into patches, projects them, adds a class token and the positions.

    The tokens of keras-cv's layer (Dosovitskiy et al. 2021, equation 1), with these mended:
    the positions are added as one table and not gathered, since the gradient of a gather is a
    `tf.IndexedSlices`, which gradient code then has to know about; shapes stay static; the
    image may be a rectangle; all weights start from a truncated normal.

    Args:
        project_dim: Width of a token.
        patch_size: Side of a patch in pixels; divides both sides of the image.
        padding: Only `"VALID"`; kept because the parent's config has it.
        **kwargs: What every Keras layer takes.
    """

    def __init__(
        self, project_dim: int, patch_size: int, padding: str = "VALID", **kwargs: Any
    ) -> None:
        super().__init__(project_dim, patch_size, padding, **kwargs)
        self.projection.name = "projection"
        self.projection.dtype_policy = self.dtype_policy
        self.projection.kernel_initializer = truncated_normal()

    def build(self, input_shape: tuple[int | None, int, int, int]) -> None:
        """Makes the projection, the class token and one position for each token."""
        _, height, width, _ = input_shape
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"An image of {height}x{width} pixels cannot be cut into patches of "
                f"{self.patch_size}: both sides must be multiples of patch_size."
            )
        self.num_patches = (height // self.patch_size) * (width // self.patch_size)
        self.projection.build(input_shape)
        self.class_token = self.add_weight(
            shape=(1, 1, self.project_dim), initializer=truncated_normal(), name="class_token"
        )
        self.position_embedding = self.add_weight(
            shape=(1, self.num_patches + 1, self.project_dim),
            initializer=truncated_normal(),
            name="position_embedding",
        )

    def call(self, images: Any) -> Any:
        """Maps `(batch, height, width, channels)` to `(batch, 1 + patches, project_dim)`.

        The class token is the first. The result has the layer's compute dtype.
        """
        patches = keras.ops.cast(self.projection(images), self.compute_dtype)
        patches = keras.ops.reshape(patches, (-1, self.num_patches, self.project_dim))
        class_token = keras.ops.broadcast_to(
            self.class_token, (keras.ops.shape(patches)[0], 1, self.project_dim)
        )
        tokens = keras.ops.concatenate([class_token, patches], axis=1)
        return tokens + keras.ops.convert_to_tensor(self.position_embedding)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `(batch, 1 + patches, project_dim)`."""
        batch, height, width, _ = input_shape
        patches = (height // self.patch_size) * (width // self.patch_size)  # type: ignore[operator]
        return (batch, patches + 1, self.project_dim)


@keras.saving.register_keras_serializable(package="tfamp")
class Attention(keras.layers.MultiHeadAttention):
    """Multi-head attention whose softmax is float32 with dropout too.

    Keras computes the softmax in float32 without dropout, and in the layer's 16 bits with it.
    The inner `softmax` and `dropout` also get fixed names and paths, like the projections
    `query`, `key`, `value` and `attention_output`. (Without dropout they are there but idle.)
    Takes the arguments of `keras.layers.MultiHeadAttention`.
    """

    def build(
        self,
        query_shape: tuple[int | None, ...],
        value_shape: tuple[int | None, ...],
        key_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Makes the projections, and names what the parent leaves to a counter."""
        super().build(query_shape, value_shape, key_shape)
        softmax, dropout = keras_internals.attention_parts(self)
        softmax.dtype_policy = keras.DTypePolicy("float32")
        softmax.name, dropout.name = "softmax", "dropout"
        scores_shape = (query_shape[0], self.num_heads, query_shape[1], value_shape[1])
        for layer in (softmax, dropout):
            layer.build(scores_shape)


@keras.saving.register_keras_serializable(package="tfamp")
class TransformerEncoder(keras_cv.layers.TransformerEncoder):
    """A pre-norm transformer block: `x += attention(norm(x))`, then `x += mlp(norm(x))`.

    keras-cv's block (Dosovitskiy et al. 2021, equations 2 and 3), with these mended:

    - `call` made new Dropouts, which own variables: `tf.function`, `fit` and XLA refused them.
    - Inner layers ignored the block's `dtype` and carried names that count up through the
      process. Here they follow the block and have fixed names, so that each can be set to
      float32 by its path: `encoder_3/attention/query`, `encoder_3/mlp_add`.
    - The attention softmax is float32 with dropout too (see `Attention`).
    - GELU is the exact one, as in DeiT. The gradient of the tanh form squares its input, and in
      float16 is NaN from 256 on.
    - Kernels start from a truncated normal.

    Args:
        project_dim: Width of a token.
        num_heads: Attention heads; divides `project_dim`.
        mlp_dim: Width of the hidden layer.
        mlp_dropout: Rate after the attention and after both dense layers.
        attention_dropout: Rate on the attention probabilities.
        layer_norm_epsilon: Added to the variance.
        **kwargs: What every Keras layer takes.
    """

    def __init__(
        self,
        project_dim: int,
        num_heads: int,
        mlp_dim: int,
        mlp_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        layer_norm_epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        # Past the parent's constructor: the layers it makes could not be taken back, as Keras
        # goes on tracking a layer after its attribute is deleted.
        super(keras_cv.layers.TransformerEncoder, self).__init__(**kwargs)
        self.project_dim = project_dim
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.mlp_dropout = mlp_dropout
        self.attention_dropout = attention_dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.activation = keras.activations.gelu

        layers = keras.layers
        policy = self.dtype_policy

        self.layer_norm1 = layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="attention_norm"
        )
        self.attn = Attention(
            num_heads,
            key_dim=project_dim // num_heads,
            dropout=attention_dropout,
            kernel_initializer=truncated_normal(),
            dtype=policy,
            name="attention",
        )
        self.dropout1 = layers.Dropout(mlp_dropout, dtype=policy, name="attention_dropout")
        self.add1 = layers.Add(dtype=policy, name="attention_add")

        self.layer_norm2 = layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="mlp_norm"
        )
        self.dense1 = layers.Dense(
            mlp_dim, kernel_initializer=truncated_normal(), dtype=policy, name="mlp_dense1"
        )
        self.gelu = layers.Activation("gelu", dtype=policy, name="mlp_gelu")
        self.dropout2 = layers.Dropout(mlp_dropout, dtype=policy, name="mlp_dropout1")
        self.dense2 = layers.Dense(
            project_dim, kernel_initializer=truncated_normal(), dtype=policy, name="mlp_dense2"
        )
        self.dropout3 = layers.Dropout(mlp_dropout, dtype=policy, name="mlp_dropout2")
        self.add2 = layers.Add(dtype=policy, name="mlp_add")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds every inner layer here, so that its path does not depend on who calls it."""
        hidden_shape = (*input_shape[:-1], self.mlp_dim)
        self.layer_norm1.build(input_shape)
        self.attn.build(input_shape, input_shape)
        self.layer_norm2.build(input_shape)
        self.dense1.build(input_shape)
        self.dense2.build(hidden_shape)
        for layer in (self.dropout1, self.dropout3):
            layer.build(input_shape)
        for layer in (self.gelu, self.dropout2):
            layer.build(hidden_shape)
        for layer in (self.add1, self.add2):
            layer.build([input_shape, input_shape])

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Maps `(batch, tokens, project_dim)` to the same shape, in the compute dtype."""
        x = self.layer_norm1(inputs)
        x = self.attn(x, x, training=training)
        x = self.dropout1(x, training=training)
        x = self.add1([x, inputs])

        y = self.layer_norm2(x)
        y = self.gelu(self.dense1(y))
        y = self.dropout2(y, training=training)
        y = self.dense2(y)
        y = self.dropout3(y, training=training)
        return self.add2([x, y])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs: the parent's, whose activation is fixed here."""
        config = super().get_config()
        del config["activation"]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TransformerEncoder:
        """Makes the layer from `get_config`; the parent's version asks for an activation."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfamp")
class ClassToken(keras.layers.Layer):
    """Keeps the first token of a sequence, which stands for the whole image."""

    def call(self, inputs: Any) -> Any:
        """Maps `(batch, tokens, width)` to `(batch, width)`."""
        return inputs[:, 0]
