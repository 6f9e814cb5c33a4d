from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest

from tests.messages import says
from tfamp.models import registry, vit, vit_layers
from tfamp.run.errors import InputError, as_flag


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vit_tiny", 5_717_416), ("vit_small", 22_050_664), ("vit_base", 86_567_656)],
)
def test_parameters_at_224_pixels_are_those_of_timm(name, expected, monkeypatch):
    # Drawing 86 million random numbers is most of the time.
    monkeypatch.setattr(vit_layers, "truncated_normal", keras.initializers.Zeros)
    model = registry.build(name, (224, 224, 3), 1000)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == expected
    assert not model.non_trainable_variables


@pytest.mark.parametrize(
    ("side", "patch", "num_patches"),
    [
        (8, 2, 16),
        (16, 2, 64),
        (28, 4, 49),
        (32, 4, 64),
        (40, 8, 25),
        (64, 8, 64),
        (96, 16, 36),
        (224, 16, 196),
    ],
)
def test_patch_size_and_tokens(side, patch, num_patches):
    assert vit.patch_size(side, side) == patch
    embedding = vit_layers.PatchEmbedding(8, patch)
    assert embedding(keras.Input((side, side, 1))).shape == (None, num_patches + 1, 8)


@pytest.mark.parametrize(
    ("shape", "suggestion"),
    [
        ((15, 15), "--image_size=14 or --image_size=16"),
        ((30, 30), "--image_size=28 or --image_size=32"),
        ((28, 30), "--image_size=28 or --image_size=32"),
        ((65, 65), "--image_size=64 or --image_size=80"),
        ((225, 225), "--image_size=224 or --image_size=240"),
    ],
)
def test_images_that_the_patch_does_not_divide(shape, suggestion):
    with pytest.raises(InputError) as raised:
        registry.build("vit_tiny", (*shape, 3), 10)
    message = raised.value.told(as_flag)
    multiples = ("of 2 up to 16", "of 4 up to 32", "of 8 up to 64", "of 16 above")
    assert says(message, f"{shape[0]}x{shape[1]}", *multiples, suggestion)


def test_every_suggested_size_is_accepted():
    refused = 0
    for side in range(8, 129):
        try:
            vit.patch_size(side, side)
        except InputError as error:
            refused += 1
            suggested = re.findall(r"--image_size=(\d+)", error.told(as_flag))
            assert len(suggested) == 2
            for allowed in map(int, suggested):
                assert allowed % vit.patch_size(allowed, allowed) == 0
    # 8 to 16: 4 odd; 17 to 32: 12; 33 to 64: 28; 65 to 128: 60.
    assert refused == 104


def test_rectangles_work_where_the_patch_divides_them(monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    model = registry.build("vit_tiny", (16, 32, 3), 10)
    assert model.get_layer("patch_embedding").output.shape == (None, 33, 192)
    assert model(np.zeros((2, 16, 32, 3))).shape == (2, 10)


def test_initial_values():
    keras.utils.set_random_seed(0)
    model = registry.build("vit_tiny", (8, 8, 1), 10)
    for variable in model.trainable_variables:
        values = variable.numpy()
        if variable.path.endswith(("kernel", "class_token", "position_embedding")):
            # Truncated at two standard deviations, which leaves 0.88 of the nominal 0.02.
            assert np.abs(values).max() <= 0.04
            tolerance = 5 / math.sqrt(2 * values.size)
            assert values.std() == pytest.approx(0.02 * 0.8796, rel=tolerance), variable.path
        else:
            assert set(np.unique(values)) == {1.0 if variable.path.endswith("gamma") else 0.0}


def test_weights_of_one_shape_start_out_different(monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 2)
    keras.utils.set_random_seed(0)
    model = registry.build("vit_tiny", (8, 8, 1), 10)
    attention = model.get_layer("encoder_0").attn
    twin = model.get_layer("encoder_1").attn
    kernels = [attention.query_dense, attention.key_dense, attention.value_dense, twin.query_dense]
    values = [layer.kernel.numpy() for layer in kernels]
    for index, value in enumerate(values):
        for other in values[index + 1 :]:
            assert (value != other).mean() > 0.99


def test_only_the_class_token_is_read_out(monkeypatch):
    """The logits do not change with the last encoder's other tokens."""
    monkeypatch.setattr(vit, "_DEPTH", 2)
    keras.utils.set_random_seed(0)
    model = registry.build("vit_tiny", (8, 8, 1), 10)
    encoded = keras.Model(model.input, model.get_layer("encoder_1").output)
    tokens = encoded(np.random.default_rng(0).normal(size=(2, 8, 8, 1))).numpy()
    readout = keras.Input(tokens.shape[1:])
    x = readout
    for name in ("class_token", "final_norm", "head"):
        x = model.get_layer(name)(x)
    head = keras.Model(readout, x)
    changed = tokens.copy()
    changed[:, 1:] += 1.0
    np.testing.assert_array_equal(head(tokens), head(changed))
    changed[:, 0, 0] += 1.0
    assert (head(tokens).numpy() != head(changed).numpy()).all()
