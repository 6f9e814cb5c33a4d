"""What is counted of a model's layers, and what is said of it."""

import dataclasses

import keras
import pytest

from tests.messages import says
from tfamp.precision import computes, policy
from tfamp.run.result import ComputesIn
from tfamp.run.run_config import Float32Effect


def model_of(layers, name="mixed_float16"):
    with policy.global_policy(name):
        layers = [keras.Input((4,)), *[make() for make in layers]]
        return keras.Sequential(layers, name="model")


def dense(units, name, **values):
    return lambda: keras.layers.Dense(units, name=name, **values)


def mixed_model():
    """Two layers in float16, one forced to float32, a norm that computes in float32 inside."""
    inner = [dense(3, "deep"), dense(2, "forced", dtype="float32")]
    return model_of(
        [
            dense(5, "first", use_bias=False),
            lambda: keras.layers.BatchNormalization(name="norm"),
            lambda: keras.layers.ReLU(name="bend"),
            lambda: keras.Sequential([make() for make in inner], name="block"),
        ]
    )


def test_layers_and_parameters_are_counted_by_what_they_compute_in():
    # first 4 * 5, norm 2 * 5 that are trained, deep 5 * 3 + 3, forced 3 * 2 + 2.
    assert computes.computes_in(mixed_model()) == ComputesIn(
        dtype="float16",
        layers=2,
        of_layers=4,
        parameters=20 + 18,
        of_parameters=20 + 10 + 18 + 8,
    )


def test_a_frozen_layer_holds_no_weights_that_count():
    model = mixed_model()
    model.get_layer("first").trainable = False
    counted = computes.computes_in(model)
    assert (counted.layers, counted.of_layers) == (1, 3)
    assert (counted.parameters, counted.of_parameters) == (18, 36)


def test_both_16_bit_types_and_none():
    both = model_of([dense(1, "a"), dense(1, "b", dtype="mixed_bfloat16")])
    assert computes.computes_in(both).dtype == "bfloat16+float16"
    none = computes.computes_in(model_of([dense(1, "a")], "float32"))
    assert (none.dtype, none.layers, none.parameters) == ("float32", 0, 0)


@pytest.mark.parametrize("norm", ["BatchNormalization", "LayerNormalization", "GroupNormalization"])
def test_normalisation_computes_in_float32_inside(norm):
    values = {"groups": 2} if norm == "GroupNormalization" else {}
    layer = getattr(keras.layers, norm)(dtype="mixed_float16", **values)
    assert not computes.is_16_bit(layer)
    assert computes.is_16_bit(keras.layers.Dense(1, dtype="bfloat16"))
    assert not computes.is_16_bit(keras.layers.Dense(1, dtype="float32"))


COUNTED = ComputesIn(dtype="float16", layers=2, of_layers=4, parameters=3, of_parameters=8)
NOTHING = dataclasses.replace(COUNTED, layers=0)


@pytest.mark.parametrize(
    ("policy_name", "counted", "said"),
    [
        ("mixed_float16", COUNTED, ("2 of 4 layers", "float16", "37.5 %")),
        ("float32", NOTHING, ("All 4 layers", "float32")),
        (
            "mixed_bfloat16",
            NOTHING,
            ("mixed_bfloat16", "no layer", "bfloat16", "All 4 layers", "float32"),
        ),
        ("float16", NOTHING, ("float16", "no layer", "float16", "All 4 layers", "float32")),
    ],
)
def test_what_is_said_of_the_count(policy_name, counted, said):
    assert says(computes.in_words(counted, policy_name), *said)


def test_the_effect_of_patterns():
    effects = computes.float32_effects(mixed_model(), ["deep|forced", "^bend$", "nothing"])
    assert effects == {
        "deep|forced": Float32Effect(
            changed=("model/block/deep",), float32_anyway=("model/block/forced",)
        ),
        "^bend$": Float32Effect(changed=("bend",), float32_anyway=()),
        "nothing": Float32Effect(changed=(), float32_anyway=()),
    }


@pytest.mark.parametrize(
    ("changed", "anyway", "said"),
    [
        (["a", "b"], [], ("moved", "a, b")),
        ([], ["c", "d"], ("nothing", "anyway", "c, d")),
        (["a"], ["c"], ("moved", "a;", "anyway", "c")),
        ([], [], ("nothing",)),
    ],
)
def test_what_is_said_of_an_effect(changed, anyway, said):
    effect = Float32Effect(changed=tuple(changed), float32_anyway=tuple(anyway))
    told = computes.effect_in_words("x", effect)
    assert says(told, "float32_layers 'x'", *said)
    assert ("moved" in told, "anyway" in told) == (bool(changed), bool(anyway))
