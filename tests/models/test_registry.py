from __future__ import annotations

import itertools
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.marks import slow
from tests.messages import naming, says
from tfamp.models import registry, resnet, vit, vit_layers
from tfamp.run.catalogue import MODELS
from tfamp.run.errors import InputError, as_flag

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
VARIABLE_DTYPE = {"float16": "float16", "bfloat16": "bfloat16"}


@pytest.fixture(autouse=True)
def shallow_vit(monkeypatch):
    """Four encoders show what twelve would in a third of the time; test_vit has all twelve."""
    monkeypatch.setattr(vit, "_DEPTH", 4)


@pytest.fixture
def zero_kernels(monkeypatch):
    """For tests that look at types alone: no millions of random numbers, one encoder."""
    monkeypatch.setattr(vit, "_DEPTH", 1)
    monkeypatch.setattr(vit_layers, "truncated_normal", keras.initializers.Zeros)
    monkeypatch.setattr(resnet, "_KERNEL_INITIALIZER", "zeros")


def images_and_labels(side=8, channels=3, batch=2, classes=10):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(batch, side, side, channels)).astype("float32")
    return images, generator.integers(0, classes, size=batch)


def paths(model):
    return [layer.path or layer.name for layer in model._flatten_layers(include_self=False)]


# Names.


@pytest.mark.parametrize("name", MODELS)
def test_known_names_pass(name):
    registry.check_name(name)


def test_unknown_name_gets_the_nearest_guess_and_the_list():
    with pytest.raises(InputError) as raised:
        registry.check_name("resnet_20")
    message = str(raised.value)
    names = ("resnet20", "resnet18", "resnet50", "vit_tiny", "vit_small", "vit_base")
    assert says(message, "'resnet_20'", "'resnet20'", "model", *names)


def test_build_refuses_what_check_name_refuses():
    with pytest.raises(InputError, match=naming("model 'alexnet'")):
        registry.build("alexnet", (32, 32, 3), 10)


def test_checking_a_name_imports_no_tensorflow():
    script = (
        "import sys\n"
        "from tfamp.models import registry\n"
        "registry.check_name('vit_tiny')\n"
        "print([m for m in ('tensorflow', 'keras', 'keras_cv', 'numpy') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# Sizes.


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vit_tiny"])
@pytest.mark.parametrize("shape", [(7, 8, 1), (8, 4, 1), (1, 1, 3)])
def test_images_below_eight_pixels_are_refused(name, shape):
    with pytest.raises(InputError) as raised:
        registry.build(name, shape, 10)
    assert says(str(raised.value), f"model='{name}'", "input_shape=(8, 8")
    assert says(raised.value.told(as_flag), f"--model={name}", "--image_size=8")


def test_one_class_is_refused():
    with pytest.raises(InputError, match=naming("num_classes=1", 2)):
        registry.build("resnet20", (8, 8, 1), 1)


# Precision.


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        # The sizes of a family are made by the same code.
        pair if pair[0] in ("resnet20", "vit_tiny") or pair[1] == "mixed_float16" else slow(*pair)
        for pair in itertools.product(MODELS, POLICIES)
    ],
)
def test_logits_are_float32_and_the_trunk_follows_the_policy(
    name, policy, set_policy, zero_kernels
):
    set_policy(policy)
    model = registry.build(name, (8, 8, 1), 10)
    assert model.name == name
    assert (model.output_shape, model.output.dtype) == ((None, 10), "float32")
    logits = model(np.ones((1, 8, 8, 1), "float32"))
    assert logits.dtype == tf.float32
    assert {v.dtype for v in model.get_layer("head").variables} == {"float32"}
    trunk = [v for layer in model.layers[:-1] for v in layer.weights]
    assert {v.dtype for v in trunk} == {VARIABLE_DTYPE.get(policy, "float32")}
    compute = {
        layer.compute_dtype
        for layer in model._flatten_layers(include_self=False)
        if layer.name not in ("image", "head", "softmax")
    }
    assert compute == {policy.removeprefix("mixed_")}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_plain_dense_head_would_not_have_been_float32(policy, set_policy):
    """The planted fault: the same trunk with a head that takes the policy."""
    set_policy(policy)
    trunk = registry.build("resnet20", (8, 8, 3), 10)
    logits = keras.layers.Dense(10)(trunk.get_layer("pool").output)
    assert logits.dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("resnet20", "mixed_float16"),
        ("resnet18", "mixed_bfloat16"),
        ("vit_tiny", "mixed_float16"),
        slow("resnet20", "mixed_bfloat16"),
        slow("resnet18", "mixed_float16"),
        slow("vit_tiny", "mixed_bfloat16"),
        slow("vit_small", "mixed_float16"),
        slow("vit_small", "mixed_bfloat16"),
    ],
)
def test_one_training_step_lowers_the_loss_and_moves_every_weight(name, policy, set_policy):
    set_policy(policy)
    model = registry.build(name, (8, 8, 3), 10)
    images, labels = images_and_labels()
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    before = [v.numpy() for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        first_loss = loss_of(labels, model(images, training=True))
    gradients = tape.gradient(first_loss, model.trainable_variables)
    assert not any(isinstance(g, tf.IndexedSlices) for g in gradients)
    assert all(np.isfinite(g).all() for g in gradients)
    keras.optimizers.SGD(0.01).apply(gradients, model.trainable_variables)
    moved = {
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if (v.numpy() != old).any()
    }
    # Softmax is blind to what the key's bias adds to all scores of a row: its gradient is
    # rounding noise and may be exactly zero.
    still = {v.path for v in model.trainable_variables} - moved
    assert all(path.endswith("attention/key/bias") for path in still), still
    assert loss_of(labels, model(images, training=True)) < first_loss


# Names of layers.


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet20", (8, 8, 1)), ("resnet18", (72, 72, 3)), ("vit_tiny", (8, 8, 1))],
)
def test_paths_are_the_same_at_the_second_build_and_unique(name, shape):
    first = registry.build(name, shape, 10)
    keras.layers.Dense(3)(keras.layers.Conv2D(3, 1)(keras.Input((8, 8, 3))))
    second = registry.build(name, shape, 10)
    assert paths(first) == paths(second)
    assert len(set(paths(first))) == len(paths(first))
    assert [v.path for v in first.variables] == [v.path for v in second.variables]


def test_a_regular_expression_over_paths_reaches_the_layers_of_one_block():
    model = registry.build("vit_tiny", (8, 8, 1), 10)
    chosen = {path for path in paths(model) if re.search("encoder_3/(attention|mlp)_norm", path)}
    assert chosen == {"encoder_3/attention_norm", "encoder_3/mlp_norm"}
    model = registry.build("resnet20", (8, 8, 1), 10)
    chosen = {path for path in paths(model) if re.search("^stage2_block1_conv", path)}
    assert chosen == {"stage2_block1_conv1", "stage2_block1_conv2"}


@pytest.mark.parametrize(
    ("name", "pattern", "changes_logits"),
    [
        ("resnet20", "stage2", True),
        ("vit_tiny", "encoder_0", True),
        ("vit_tiny", "projection", True),
        # The whole residual stream. The last addition of a block alone changes nothing: the
        # next block takes its input in float16 again.
        ("vit_tiny", r"encoder_\d+$|_add$", True),
        ("vit_tiny", "mlp_add", False),
    ],
)
def test_layers_forced_to_float32_by_path(name, pattern, changes_logits, set_policy):
    set_policy("mixed_float16")
    model = registry.build(name, (8, 8, 3), 10)
    images, _ = images_and_labels()
    plain = model(images).numpy()
    forced = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if re.search(pattern, layer.path or layer.name)
    ]
    for layer in forced:
        layer.dtype_policy = keras.DTypePolicy("float32")
    assert forced
    logits = model(images).numpy()
    assert (logits != plain).any() == changes_logits
    np.testing.assert_allclose(logits, plain, atol=0.02)


# Files.


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("resnet20", "float32"),
        ("resnet20", "mixed_float16"),
        ("vit_tiny", "mixed_bfloat16"),
        ("vit_tiny", "float16"),
    ],
)
def test_a_saved_model_predicts_the_same_under_another_global_policy(
    name, policy, set_policy, tmp_path
):
    set_policy(policy)
    model = registry.build(name, (8, 8, 3), 10)
    images, _ = images_and_labels()
    expected = model(images).numpy()
    model.save(tmp_path / "model.keras")
    set_policy("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images).numpy(), expected)
    assert paths(loaded) == paths(model)
