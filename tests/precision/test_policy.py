"""Policies for a while, layers forced to float32, float16 found whatever its name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import POLICIES
from tfamp.precision import policy
from tfamp.run.errors import InputError


def small_model():
    """Two dense layers and a nested block."""
    inner = keras.Sequential([keras.layers.Dense(3, name="deep")], name="block")
    first = keras.layers.Dense(4, name="first")
    last = keras.layers.Dense(1, name="last")
    return keras.Sequential([keras.Input((2,)), first, inner, last], name="small")


@pytest.mark.parametrize("name", POLICIES)
def test_the_global_policy_is_put_back_even_after_an_error(name):
    with pytest.raises(RuntimeError), policy.global_policy(name):
        assert keras.config.dtype_policy().name == name
        raise RuntimeError
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_is_set_and_put_back(before, enabled):
    tf.config.experimental.enable_tensor_float_32_execution(before)
    try:
        with policy.tf32(enabled):
            assert tf.config.experimental.tensor_float_32_execution_enabled() is enabled
        assert tf.config.experimental.tensor_float_32_execution_enabled() is before
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(None, False), ((7, 5), False), ((8, 0), True), ((9, 0), True)],
)
def test_only_gpus_from_ampere_on_compute_in_tf32(capability, expected, monkeypatch):
    details = {} if capability is None else {"compute_capability": capability}
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: ["one"] if kind == "GPU" else ["cpu"]
    )
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda device: {"one": details}[device]
    )
    with policy.tf32(True):
        assert policy.computes_in_tf32() is expected
    with policy.tf32(False):
        assert not policy.computes_in_tf32()


def test_nothing_computes_in_tf32_without_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    with policy.tf32(True):
        assert policy.computes_in_tf32() is False


def test_forced_layers_compute_in_float32_and_the_others_do_not():
    with policy.global_policy("mixed_float16"):
        model = small_model()
    forced = policy.force_float32(model, ["deep", "last$"])
    assert [path.split("/")[-1] for path in forced] == ["deep", "last"]
    assert [path.split("/")[-1] for path in policy.float16_layers(model)] == ["first", "block"]
    # 70000 is beyond float16: it passes the forced layer and not the others.
    deep = next(x for x in policy.all_layers(model) if x.name == "deep")
    deep.set_weights([np.ones((4, 3), "float32"), np.full(3, 70000.0, "float32")])
    assert np.isfinite(deep(np.ones((1, 4), "float32"))).all()


def test_a_layer_is_forced_whatever_the_global_policy_is():
    with policy.global_policy("mixed_float16"):
        model = small_model()
        policy.force_float32(model, ["first"])
        assert model.get_layer("first").dtype_policy.name == "float32"


def test_layers_without_weights_have_no_path_and_are_found_by_name():
    with policy.global_policy("mixed_float16"):
        relu = keras.layers.ReLU(name="bend")
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1), relu])
    assert policy.force_float32(model, ["^bend$"]) == ["bend"]
    assert relu.compute_dtype == "float32"


def test_a_pattern_without_a_match_is_refused_with_near_ones():
    with pytest.raises(InputError, match=r"'frist' matches no layer of 'small'.*first"):
        policy.force_float32(small_model(), ["frist"])


def test_the_near_ones_are_five_by_their_likeness_to_the_last_part_too():
    names = ["peas", "a", "b", "c", "d"]
    inner = keras.Sequential([keras.layers.Dense(1, name="deep")], name="block")
    layers = [*[keras.layers.Dense(1, name=name) for name in names], inner]
    model = keras.Sequential([keras.Input((1,)), *layers], name="m")
    with pytest.raises(InputError) as refused:
        policy.force_float32(model, ["deap"])
    assert "float32_layers" in str(refused.value)
    near = str(refused.value).split("Near it: ")[1].rstrip(".").split(", ")
    assert near[:2] == ["m/block/deep", "m/peas"] and len(near) == 5


def test_float16_is_found_under_every_name():
    with policy.global_policy("float16"):
        assert len(policy.float16_layers(small_model())) == 4
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, dtype="mixed_float16", name="one")]
    )
    assert [path.split("/")[-1] for path in policy.float16_layers(model)] == ["one"]
    by_path = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    by_path[".*mapped"] = keras.DTypePolicy("mixed_float16")
    layer = keras.layers.Dense(1, dtype=by_path, name="mapped")
    mapped = policy.float16_layers(keras.Sequential([keras.Input((2,)), layer]))
    assert [path.split("/")[-1] for path in mapped] == ["mapped"]
    with policy.global_policy("mixed_bfloat16"):
        assert policy.float16_layers(small_model()) == []
