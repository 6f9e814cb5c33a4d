"""What stock Keras's loss scaling does wrong, each shown on Keras and then right on tfamp.

The six of DESIGN.md. An assertion on `stock` describes Keras's defect; should a later Keras mend
it, that assertion fails and can go. The replicas' defect, an infinity on replica 1 that reaches the
weights, is in test_replicas.py.
"""

import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_loss_scale import drive

import tfamp
from tfamp.precision import policy
from tfamp.precision.silent_float16 import warn_if_unscaled

INF = math.inf


def stock(inner=None, **values):
    inner = inner or keras.optimizers.SGD(1.0)
    return keras.optimizers.LossScaleOptimizer(inner, **({"initial_scale": 2.0**15} | values))


def ours(inner=None, **values):
    return tfamp.LossScaleOptimizer(inner or keras.optimizers.SGD(1.0), **values)


# 1. No floor: the scale reaches 0, and the next good step divides 0 by 0.


def test_bad_steps_without_end_leave_the_weights_alone():
    # 2^15 takes 165 halvings to 0 where float32 keeps subnormals, 142 where it flushes them.
    assert math.isnan(drive(stock(), [INF] * 165 + [0.5]))
    optimizer = ours()
    assert drive(optimizer, [INF] * 165 + [0.5]) == 0.5
    assert optimizer.scale == 2.0**-14
    with pytest.raises(tfamp.LossScaleCollapse):
        optimizer.raise_if_collapsed()


# 2. No ceiling: the scale reaches inf, where every step is skipped for ever.


def test_clean_steps_without_end_do_not_stop_training():
    clean = [0.0] * 113 + [0.5] * 3
    optimizer = stock(dynamic_growth_steps=1)
    assert drive(optimizer, [0.0] * 113) == 1.0
    assert math.isinf(optimizer.dynamic_scale.numpy())
    optimizer = ours(dynamic_growth_steps=1)
    assert drive(optimizer, clean) == 1.0 - 3 * 0.5
    assert (optimizer.scale, optimizer.skipped_total) == (2.0**24, 0)


# 3. Replicas: test_replicas.py.

# 4. Only a model whose policy is named mixed_float16 is scaled, and nobody is told.


def with_a_policy_map():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16")
    keras.config.set_dtype_policy(policies)
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(1, name="half")(inputs))


def with_one_float16_layer():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1, dtype="mixed_float16", name="half")(inputs)
    return keras.Model(inputs, outputs)


def in_pure_float16():
    keras.config.set_dtype_policy("float16")
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(1, name="half")(inputs))


@pytest.mark.parametrize(
    "build", [with_a_policy_map, with_one_float16_layer, in_pure_float16], ids=lambda b: b.__name__
)
def test_float16_that_nothing_scales_is_named(build):
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.compile("sgd", loss="mse")  # Silent.
    assert not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert "half" in policy.float16_layers(model)
    with pytest.warns(UserWarning, match=r"compute in float16.*half.*LossScaleOptimizer"):
        warn_if_unscaled(model)
    model.compile(ours(), loss="mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unscaled(model)


# 5. A static scale has no finite check.


def test_a_static_scale_skips_what_is_not_finite():
    weight = keras.Variable([1.0])
    static = keras.optimizers.SGD(1.0, loss_scale_factor=8.0)
    static.build([weight])
    static.apply([tf.constant([INF])], [weight])
    assert weight.numpy()[0] == -INF
    optimizer = ours(keras.optimizers.SGD(1.0, loss_scale_factor=8.0), dynamic=False)
    assert optimizer.scale == 8.0
    assert drive(optimizer, [INF, 0.25]) == 0.75
    assert (optimizer.skipped_total, optimizer.scale) == (1, 8.0)


# 6a. load_weights before build drops the scale with a warning.


def test_load_weights_before_build_keeps_the_scale(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")

    def model_with(optimizer):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(optimizer, loss="mse")
        return model

    for make in (stock, ours):
        saved = model_with(make())
        saved.optimizer.build(saved.trainable_variables)
        saved.optimizer.dynamic_scale.assign(4.0)
        saved.save_weights(tmp_path / f"{make.__name__}.weights.h5")
    loaded = model_with(stock())
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        loaded.load_weights(tmp_path / "stock.weights.h5")
    loaded.optimizer.build(loaded.trainable_variables)
    assert loaded.optimizer.dynamic_scale.numpy() == 2.0**15
    loaded = model_with(ours())
    loaded.load_weights(tmp_path / "ours.weights.h5")
    loaded.optimizer.build(loaded.trainable_variables)
    assert loaded.optimizer.scale == 4.0


# 6b. Nothing logs the scale or the skips; no floor, ceiling or factors can be chosen.


def test_the_scale_and_the_skips_are_on_record_and_the_rules_can_be_chosen():
    optimizer = stock(initial_scale=16.0)
    drive(optimizer, [1, INF, INF])
    for name in ("history", "skipped_total", "steps_attempted", "grad_norm"):
        assert not hasattr(optimizer, name)
    with pytest.raises(ValueError, match="does not support arguments"):
        stock(growth_factor=4.0)
    optimizer = ours(initial_scale=16.0, backoff_factor=0.25, min_scale=2.0)
    drive(optimizer, [1, INF, INF])
    assert optimizer.history()[1]["scale"].tolist() == [16, 16, 4]
    assert (optimizer.scale, optimizer.skipped_total) == (2.0, 2)


# Found on the way, beyond the six.


def test_a_float16_loss_does_not_overflow_before_build():
    # Keras multiplies in the loss's dtype while it is not built.
    assert np.isinf(stock().scale_loss(tf.constant(4.0, tf.float16)).numpy())
    assert ours().scale_loss(tf.constant(4.0, tf.float16)).numpy() == 131072.0


def test_a_loss_scale_factor_is_not_erased_from_a_static_optimizer():
    inner = keras.optimizers.SGD(1.0, loss_scale_factor=8.0)
    assert stock(inner).scale_loss(1.0).numpy() == 2.0**15
    inner = keras.optimizers.SGD(1.0, loss_scale_factor=8.0)
    assert ours(inner, dynamic=False).scale_loss(1.0).numpy() == 8.0


def test_wrapping_twice_is_refused():
    stock(stock())  # Scales by 2^30, silently.
    with pytest.raises(ValueError, match="scaled twice"):
        ours(ours())
