"""Which optimizers leave float16 without a loss scale, and which layers are named for it."""

import warnings

import keras
import pytest

import tfamp
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.precision.silent_float16 import warn_if_unscaled


def model_of(count, dtype="mixed_float16"):
    layers = [keras.layers.Dense(1, name=f"d{i}", dtype=dtype) for i in range(count)]
    return keras.Sequential([keras.Input((1,)), *layers], name="m")


def sgd(**values):
    return keras.optimizers.SGD(**values)


SCALED = [
    lambda: tfamp.LossScaleOptimizer(sgd()),
    lambda: keras.optimizers.LossScaleOptimizer(sgd()),
    lambda: sgd(loss_scale_factor=8.0),
]
UNSCALED = [sgd, lambda: RecordedOptimizer(sgd()), lambda: object()]


@pytest.mark.parametrize("make", SCALED)
def test_what_scales_is_not_warned_of(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unscaled(model_of(1), [make()])


@pytest.mark.parametrize("make", UNSCALED)
def test_what_does_not_scale_is_warned_of_and_one_is_enough(make):
    with pytest.warns(UserWarning, match="nothing scales the loss: m/d0, m/d1. Small") as found:
        warn_if_unscaled(model_of(2), [SCALED[0](), make()])
    assert found[0].filename == __file__


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_other_precisions_need_no_scale(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unscaled(model_of(1, dtype), [sgd()])


@pytest.mark.parametrize(
    ("count", "named"),
    [
        (5, "m/d0, m/d1, m/d2, m/d3, m/d4. Small"),
        (6, "m/d0, m/d1, m/d2, m/d3, m/d4 and 1 more. Small"),
        (7, "m/d0, m/d1, m/d2, m/d3, m/d4 and 2 more. Small"),
    ],
)
def test_five_layers_are_named_and_the_others_counted(count, named):
    with pytest.warns(UserWarning, match=named):
        warn_if_unscaled(model_of(count), [sgd()])


def test_the_models_own_optimizer_is_asked_where_none_is_given():
    model = model_of(1)
    model.compile(RecordedOptimizer(sgd()), "mse")
    with pytest.warns(UserWarning, match="m/d0"):
        warn_if_unscaled(model)
    model.compile(tfamp.LossScaleOptimizer(sgd()), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unscaled(model)
