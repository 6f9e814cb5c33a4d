"""gradient_fidelity against chosen magnitudes, and against a computation written by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tfamp.run.fidelity import Fidelity, Window

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def linear_loss(targets, outputs):
    """The gradient with respect to the outputs is the targets."""
    return tf.reduce_sum(targets * tf.cast(outputs, targets.dtype))


def layer(fidelity, name):
    (found,) = [each for each in fidelity.layers if each.path.split("/")[-1] == name]
    return found


def at(points, log2_scale=None, precision="mixed_float16"):
    (found,) = [p for p in points if (p.precision, p.log2_scale) == (precision, log2_scale)]
    return found


EXPONENTS = range(-30, -7)


@pytest.fixture(scope="module")
def linear():
    """One gradient of each of 2^-30 to 2^-8 in a float16 layer, the other 506 zero."""
    size = len(EXPONENTS)
    model = keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(size, use_bias=False, name="dense")]
    )
    targets = np.diag(2.0 ** np.array(EXPONENTS)).astype(np.float32)
    batch = (np.eye(size, dtype=np.float32), targets)
    return tfamp.gradient_fidelity(model, linear_loss, [batch])


def test_chosen_magnitudes_underflow_to_the_entry(linear):
    dense = layer(linear, "dense")
    for points in (dense.points, dense.activation_points, linear.precisions):
        for k in range(25):
            scaled = [exponent + k for exponent in EXPONENTS]
            point, entries = at(points, k), len(EXPONENTS) ** 2
            # Half of the smallest subnormal number, 2^-24, is rounded to zero.
            assert point.underflow_fraction == sum(e <= -25 for e in scaled) / entries
            assert point.subnormal_fraction == sum(-25 < e < -14 for e in scaled) / entries


def test_chosen_magnitudes_have_their_error(linear):
    points, sizes = layer(linear, "dense").points, 4.0 ** np.array(EXPONENTS)
    for k in range(24):
        lost = sum(4.0**e for e in EXPONENTS if e + k <= -25)
        assert at(points, k).relative_error == pytest.approx((lost / sizes.sum()) ** 0.5)
    # 2^-8 times 2^24 is beyond float16: of the weight's gradient one entry, and each product
    # with it.
    assert at(points, 24).relative_error is at(points, 24).cosine is None
    assert at(layer(linear, "dense").activation_points, 24).non_finite_fraction == 1 / 23**2
    assert at(points, precision="float32").relative_error == 0
    assert at(points, precision="mixed_bfloat16").underflow_fraction == 0


def test_chosen_magnitudes_have_their_window(linear):
    window = Window(log2_min=6, log2_max=23)
    assert layer(linear, "dense").window == linear.window == window
    assert linear.advice.static_scale == 2.0**14
    assert window.holds(linear.advice.initial_scale)
    assert linear.advice.expected_skips == 0


def test_chosen_magnitudes_are_in_the_histogram(linear):
    for found in (
        layer(linear, "dense").weight_exponents,
        layer(linear, "dense").activation_exponents,
    ):
        assert (found.first, found.counts, found.zeros) == (-30, (1,) * 23, 506)


def test_the_figures_of_a_whole_are_those_of_its_only_layer(linear):
    assert linear.precisions == layer(linear, "dense").points
    assert linear.activation_precisions == layer(linear, "dense").activation_points
    assert (linear.batch_size, linear.num_batches, linear.reference) == (23, 1, "float64")
    assert Fidelity.from_json(linear.to_json()) == linear


def dense_net(dtype, head="float32"):
    """A small net in some dtype; weights of float64 where it is float64."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6,), dtype="float64" if dtype == "float64" else "float32"),
            keras.layers.Dense(8, activation="tanh", dtype=dtype, name="first"),
            keras.layers.Dense(5, activation="tanh", dtype=dtype, name="second"),
            keras.layers.Dense(3, dtype="float64" if dtype == "float64" else head, name="head"),
        ]
    )


def by_hand(model, inputs, targets, scale=1.0):
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = tf.reduce_mean((tf.cast(targets, outputs.dtype) - outputs) ** 2)
        scaled = loss * tf.cast(scale, loss.dtype)
    return [
        np.asarray(g, np.float64) / scale for g in tape.gradient(scaled, model.trainable_weights)
    ]


def error_of(found, reference):
    found, reference = (np.concatenate([np.ravel(g) for g in gs]) for gs in (found, reference))
    return np.linalg.norm(found - reference) / np.linalg.norm(reference)


def test_a_computation_by_hand_agrees():
    model = dense_net("float32")
    inputs, targets = normal(16, 6), 1e-3 * normal(16, 3)
    wide, half = dense_net("float64"), dense_net("mixed_float16")
    for other in (wide, half):
        other.set_weights(model.get_weights())
    reference = by_hand(wide, inputs.astype(np.float64), targets)
    # The head of a model in float32 all over goes to float16 with the others.
    half_all = dense_net("mixed_float16", head="mixed_float16")
    half_all.set_weights(model.get_weights())

    def loss(targets, outputs):
        return tf.reduce_mean((tf.cast(targets, outputs.dtype) - outputs) ** 2)

    for given, float16 in ((half, half), (model, half_all)):
        fidelity = tfamp.gradient_fidelity(given, loss, [(inputs, targets)], log2_scales=[0, 7])
        for k in (0, 7):
            found = by_hand(float16, inputs, targets, 2.0**k)
            expected = error_of(found, reference)
            assert at(fidelity.precisions, k).relative_error == pytest.approx(expected, rel=1e-6)
            for place, name in enumerate(("first", "second", "head")):
                some = slice(2 * place, 2 * place + 2)
                expected = error_of(found[some], reference[some])
                figure = at(layer(fidelity, name).points, k).relative_error
                assert figure == pytest.approx(expected, rel=1e-6)


class Subclassed(keras.Model):
    """A block called twice, and an output that nothing is made of."""

    def __init__(self):
        super().__init__()
        self.block = keras.Sequential(
            [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(4)]
        )
        self.head = keras.layers.Dense(2)
        self.unused = keras.layers.Dense(2)

    def call(self, inputs):
        self.unused(inputs)
        return self.head(self.block(self.block(inputs)))


def subclassed():
    model = Subclassed()
    model(normal(1, 4))
    return model, normal(8, 4), normal(8, 2)


def nested():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, activation="tanh")])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inner(inputs))))
    return model, normal(8, 4), normal(8, 2)


def two_outputs_two_inputs():
    first, second = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = keras.layers.Concatenate()([keras.layers.Dense(4)(first), second])
    outputs = [keras.layers.Dense(2)(joined), keras.layers.Dense(1)(joined)]
    model = keras.Model([first, second], outputs)
    return model, [normal(8, 4), normal(8, 3)], [normal(8, 2), normal(8, 1)]


@pytest.mark.parametrize(
    ("build", "num_with_weights"), [(subclassed, 3), (nested, 2), (two_outputs_two_inputs, 3)]
)
def test_models_of_other_forms(build, num_with_weights):
    model, inputs, targets = build()
    before = [np.array(w) for w in model.weights]
    fidelity = tfamp.gradient_fidelity(model, "mse", [(inputs, targets)], log2_scales=[0, 10])
    for each in fidelity.layers:
        if each.path.split("/")[-1].startswith("unused") or "does not depend" in (each.why or ""):
            assert each.window is None and not each.points
            continue
        assert each.window == Window(log2_min=0, log2_max=10, is_open=True)
        for points in filter(None, (each.points, each.activation_points)):
            assert 0 < at(points, 10).relative_error < 0.02
            assert at(points, precision="float32").relative_error < 1e-5
    assert sum(bool(each.points) for each in fidelity.layers) == num_with_weights
    assert 0 < at(fidelity.precisions, 10).relative_error < 0.02
    assert all(
        (now == then).all() for now, then in zip(map(np.array, model.weights), before, strict=True)
    )
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
