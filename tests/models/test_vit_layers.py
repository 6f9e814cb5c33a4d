from __future__ import annotations

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf

from tests.marks import slow
from tfamp.models import vit_layers

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def tokens(batch=2, length=5, width=16):
    return np.random.default_rng(0).normal(size=(batch, length, width)).astype("float32")


def encoder(**kwargs):
    return vit_layers.TransformerEncoder(project_dim=16, num_heads=2, mlp_dim=32, **kwargs)


def test_with_zero_branches_the_block_is_the_identity():
    """Pre-norm: nothing on the main path normalises. A post-norm block would change the input."""
    layer = encoder()
    layer.build((None, 5, 16))
    for projection in (layer.attn.output_dense, layer.dense2):
        projection.kernel.assign(tf.zeros_like(projection.kernel))
    np.testing.assert_array_equal(layer(tokens()), tokens())


def test_it_computes_what_the_keras_cv_block_computes():
    keras.utils.set_random_seed(0)
    theirs = keras_cv.layers.TransformerEncoder(
        project_dim=16, num_heads=2, mlp_dim=32, mlp_dropout=0.0, attention_dropout=0.0
    )
    expected = theirs(tokens()).numpy()
    ours = encoder()
    ours.build((None, 5, 16))
    for name in ("layer_norm1", "attn", "layer_norm2", "dense1", "dense2"):
        getattr(ours, name).set_weights(getattr(theirs, name).get_weights())
    # They differ by exact and tanh GELU, at most 5e-4 an activation.
    np.testing.assert_allclose(ours(tokens()), expected, atol=2e-3)


def test_tanh_gelu_would_give_nan_gradients_in_float16():
    x = tf.constant([255.0, 256.0, 300.0], tf.float16)
    gradients = {}
    for approximate in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = keras.activations.gelu(x, approximate=approximate)
        gradients[approximate] = tape.gradient(y, x).numpy()
    np.testing.assert_array_equal(gradients[True], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(gradients[False], [1.0, 1.0, 1.0])

    layer = encoder(dtype="mixed_float16")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer.gelu(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [1.0, 1.0, 1.0])


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_with_dropout_it_trains_in_fit_where_the_parent_does_not(jit_compile, set_policy):
    set_policy("mixed_float16")
    inputs = keras.Input((5, 16))

    def classifier(block):
        x = keras.layers.GlobalAveragePooling1D()(block(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))
        model.compile(
            optimizer=keras.optimizers.SGD(0.1),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
        )
        return model

    x, y = tokens(batch=8), np.arange(8) % 3
    model = classifier(encoder(mlp_dropout=0.1, attention_dropout=0.1))
    history = model.fit(x, y, epochs=3, batch_size=8, verbose=0)
    losses = history.history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    if not jit_compile:
        parent = keras_cv.layers.TransformerEncoder(project_dim=16, num_heads=2, mlp_dim=32)
        with pytest.raises(ValueError, match="singleton"):
            classifier(parent).fit(x, y, batch_size=8, verbose=0)


def test_dropout_is_active_in_training_only():
    keras.utils.set_random_seed(0)
    layer = encoder(mlp_dropout=0.5)
    x = tokens()
    np.testing.assert_array_equal(layer(x), layer(x, training=False))
    assert (layer(x, training=True).numpy() != layer(x).numpy()).mean() > 0.5


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_attention_softmax_is_float32_with_dropout(policy):
    x = tokens().astype(policy.removeprefix("mixed_"))

    def scores(layer_class):
        layer = layer_class(2, 8, dropout=0.1, dtype=policy)
        return layer(x, x, return_attention_scores=True)

    output, ours = scores(vit_layers.Attention)
    assert ours.dtype == tf.float32
    assert output.dtype == policy.removeprefix("mixed_")
    _, stock = scores(keras.layers.MultiHeadAttention)
    assert stock.dtype == policy.removeprefix("mixed_")


def test_inner_layers_follow_the_dtype_of_the_block_and_not_the_global_policy(set_policy):
    set_policy("mixed_float16")
    layer = encoder(dtype="float32")
    embedding = vit_layers.PatchEmbedding(16, 4, dtype="float32")
    layer.build((None, 5, 16))
    embedding.build((None, 8, 8, 3))
    for inner in [*layer._flatten_layers(), *embedding._flatten_layers()]:
        assert inner.compute_dtype == "float32", inner.path
    theirs = keras_cv.layers.TransformerEncoder(16, 2, 32, dtype="float32")
    assert theirs.dense1.compute_dtype == "float16"


@pytest.mark.parametrize("policy", POLICIES)
def test_encoder_config_round_trip(policy):
    layer = encoder(mlp_dropout=0.2, attention_dropout=0.1, dtype=policy, name="encoder_7")
    again = vit_layers.TransformerEncoder.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.dropout1.rate == 0.2
    assert again.name == "encoder_7"
    assert layer(tokens()).dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("policy", POLICIES)
def test_patch_embedding_by_hand(policy):
    layer = vit_layers.PatchEmbedding(2, 2, dtype=policy)
    layer.build((None, 2, 4, 1))
    # One output sums the patch, the other takes its first pixel.
    layer.projection.kernel.assign([[[[1.0, 1.0]], [[1.0, 0.0]]], [[[1.0, 0.0]], [[1.0, 0.0]]]])
    layer.class_token.assign([[[100.0, 200.0]]])
    layer.position_embedding.assign([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    images = np.array([[[1, 2, 3, 4], [5, 6, 7, 8]]], "float32")[..., None]
    out = layer(images)
    assert out.dtype == policy.removeprefix("mixed_")
    expected = [[[101.0, 201.0], [14 + 2.0, 1 + 2.0], [22 + 3.0, 3 + 3.0]]]
    np.testing.assert_array_equal(tf.cast(out, tf.float32), expected)


def test_positions_have_a_dense_gradient_where_the_parent_has_indexed_slices():
    images = tf.ones((1, 4, 4, 1))

    def gradient_types(layer):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(images))
        return {type(g) for g in tape.gradient(y, layer.trainable_variables)}

    assert tf.IndexedSlices not in gradient_types(vit_layers.PatchEmbedding(2, 2))
    assert tf.IndexedSlices in gradient_types(keras_cv.layers.PatchingAndEmbedding(2, 2))


def test_patch_embedding_refuses_images_that_the_patch_does_not_divide():
    with pytest.raises(ValueError, match="10x8 pixels cannot be cut into patches of 4"):
        vit_layers.PatchEmbedding(2, 4).build((None, 10, 8, 1))


def test_class_token_takes_the_first():
    np.testing.assert_array_equal(vit_layers.ClassToken()(tokens()), tokens()[:, 0])
