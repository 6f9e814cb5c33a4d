from __future__ import annotations

import math

import keras
import keras_cv
import numpy as np
import pytest

from tests.marks import slow
from tfamp.models import registry, resnet


def num_trainable(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "expected"),
    [
        # He et al. 2016, table 6: 0.27M.
        ("resnet20", (32, 32, 3), 10, 269_722),
        ("resnet20", (28, 28, 1), 10, 269_434),
        # torchvision.models.resnet18 and resnet50.
        ("resnet18", (224, 224, 3), 1000, 11_689_512),
        slow("resnet50", (224, 224, 3), 1000, 25_557_032),
        # The CIFAR form that is commonly used: 3x3 stem.
        ("resnet18", (32, 32, 3), 10, 11_173_962),
        ("resnet50", (32, 32, 3), 10, 23_520_842),
    ],
)
def test_trainable_parameters(name, shape, num_classes, expected):
    assert num_trainable(registry.build(name, shape, num_classes)) == expected


def test_padded_shortcut_takes_every_second_pixel_and_adds_zero_channels():
    images = np.arange(2 * 3 * 3 * 2, dtype="float32").reshape(2, 3, 3, 2)
    out = resnet.PaddedShortcut(5, 2)(images).numpy()
    assert out.shape == (2, 2, 2, 5)
    np.testing.assert_array_equal(out[..., 1:3], images[:, ::2, ::2])
    assert not out[..., [0, 3, 4]].any()


def test_resnet20_has_twenty_weighted_layers_and_no_shortcut_weights():
    model = registry.build("resnet20", (32, 32, 3), 10)
    weighted = [x for x in model.layers if isinstance(x, (keras.layers.Conv2D, keras.layers.Dense))]
    assert len(weighted) == 20
    assert not any("shortcut" in v.path for v in model.variables)


def stage_sides(model, stages):
    """The side of the feature maps that leave each stage."""
    sides = {}
    for layer in model.layers:
        if layer.name.endswith("_out"):
            sides[layer.name.split("_")[0]] = layer.output.shape[1]
    return [sides[f"stage{stage + 1}"] for stage in range(stages)]


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("resnet20", 32, [32, 16, 8]),
        ("resnet20", 28, [28, 14, 7]),
        ("resnet18", 64, [64, 32, 16, 8]),
        ("resnet18", 65, [17, 9, 5, 3]),
    ],
)
def test_resolution_of_each_stage(name, side, expected):
    model = registry.build(name, (side, side, 3), 10)
    assert stage_sides(model, len(expected)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_large_and_small_images_give_the_same_names_but_for_the_pooling(name):
    small = registry.build(name, (32, 32, 3), 10)
    large = registry.build(name, (96, 96, 3), 10)
    small_names = {layer.name for layer in small.layers}
    large_names = {layer.name for layer in large.layers}
    assert large_names - small_names == {"stem_pool"}
    assert not small_names - large_names
    shapes = [{v.path: v.shape for v in model.variables} for model in (small, large)]
    assert shapes[0].pop("stem_conv/kernel") == (3, 3, 3, 64)
    assert shapes[1].pop("stem_conv/kernel") == (7, 7, 3, 64)
    assert shapes[0] == shapes[1]


def test_above_64_pixels_it_computes_what_the_keras_cv_backbone_computes():
    keras.utils.set_random_seed(0)
    model = registry.build("resnet18", (72, 72, 3), 10)
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=[2, 2, 2, 2],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=False,
        block_type="basic_block",
        input_shape=(72, 72, 3),
    )
    *ours, _, _ = model.get_weights()
    backbone.set_weights(ours)
    images = np.random.default_rng(0).normal(size=(2, 72, 72, 3)).astype("float32")
    trunk = keras.Model(model.input, model.get_layer("stage4_block2_out").output)
    # Not bit for bit: keras-cv adds 1.001e-5 to the variance, we add 1e-5.
    np.testing.assert_allclose(trunk(images), backbone(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", [32, 72])
def test_initial_values_and_normalisation(side):
    keras.utils.set_random_seed(0)
    model = registry.build("resnet18", (side, side, 3), 10)
    kernels = [model.get_layer(f"stage4_block2_conv{i}").kernel.numpy() for i in (1, 2)]
    for kernel in kernels:
        # He normal: variance 2 / fan_in. Keras' default (Glorot) would be half of it here.
        assert kernel.std() == pytest.approx(math.sqrt(2 / (9 * 512)), rel=0.01)
    assert (kernels[0] != kernels[1]).mean() > 0.99
    norm = model.get_layer("stage4_block2_norm2")
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)


def test_a_name_of_another_keras_cv_is_kept():
    assert resnet._layer_name("v2_stack_0_block1_0_bn") == "stage1_block1_shortcut_norm"
    assert resnet._layer_name("v2_stack_3_block12_3_conv") == "stage4_block12_conv3"
    assert resnet._layer_name("pool1_pool") == "stem_pool"
    assert resnet._layer_name("squeeze_excite") == "squeeze_excite"


def test_rectangles_work():
    assert registry.build("resnet20", (16, 9, 1), 3)(np.zeros((2, 16, 9, 1))).shape == (2, 3)
