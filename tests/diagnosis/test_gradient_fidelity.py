"""gradient_fidelity against chosen magnitudes, and against a computation written by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow
from tests.messages import says
from tfamp.diagnosis.non_finite import NonFiniteReference
from tfamp.run.errors import InputError
from tfamp.run.fidelity import Fidelity, Window

FLOAT16 = ("mixed_float16",)
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


@pytest.mark.parametrize("is_mixed", [True, slow(False)])
def test_a_computation_by_hand_agrees(is_mixed):
    model = dense_net("mixed_float16" if is_mixed else "float32")
    inputs, targets = normal(16, 6), 1e-3 * normal(16, 3)
    # The head of a model in float32 all over goes to float16 with the others.
    half = dense_net("mixed_float16", head="float32" if is_mixed else "mixed_float16")
    wide = dense_net("float64")
    for other in (wide, half):
        other.set_weights(model.get_weights())
    reference = by_hand(wide, inputs.astype(np.float64), targets)

    def loss(targets, outputs):
        return tf.reduce_mean((tf.cast(targets, outputs.dtype) - outputs) ** 2)

    fidelity = tfamp.gradient_fidelity(model, loss, [(inputs, targets)], log2_scales=[0, 7])
    for k in (0, 7):
        found = by_hand(half, inputs, targets, 2.0**k)
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
    ("build", "num_with_weights"),
    [(subclassed, 3), slow(nested, 2), slow(two_outputs_two_inputs, 3)],
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


def one_layer_each(**units):
    """A float16 layer per name, each with inputs and an output of its own."""
    inputs = [keras.Input((n,), name=f"in_{name}") for name, n in units.items()]
    outputs = [
        keras.layers.Dense(n, use_bias=False, name=name)(each)
        for each, (name, n) in zip(inputs, units.items(), strict=True)
    ]
    return keras.Model(inputs, outputs)


def linear_losses(targets, outputs):
    return tf.add_n([linear_loss(t, y) for t, y in zip(targets, outputs, strict=True)])


def test_two_layers_that_contradict_each_other_are_named_and_one_is_cured():
    """One needs 2^16, another overflows above 2^8."""
    model = one_layer_each(small=16, large=16)
    eye = np.eye(16, dtype=np.float32)
    random = RANDOM.uniform(1, 1.9, size=(16, 16)).astype(np.float32)
    targets = [random * 2.0**-31, random * 2.0**7]
    fidelity = tfamp.gradient_fidelity(
        model, linear_losses, [([eye, eye], targets)], precisions=FLOAT16
    )
    small, large = layer(fidelity, "small"), layer(fidelity, "large")
    assert large.window == Window(log2_min=0, log2_max=8)
    # All numbers normal from 2^17 on; there the rounding error is 2.8e-4, half of it at 2^16.
    assert small.window.log2_min in (16, 17) and small.window.is_open
    assert fidelity.window is None
    assert says(fidelity.why, "small", "large", "2^8", "float32")
    advice = fidelity.advice
    assert len(advice.float32_layers) == 1
    assert advice.float32_layers[0].split("/")[-1] in ("small", "large")
    assert advice.static_scale is not None
    assert any(flag.startswith("--float32_layers=^") for flag in advice.flags)


def test_overflow_that_begins_below_scale_1():
    model = one_layer_each(dense=8)
    eye = np.eye(8, dtype=np.float32)
    targets = [np.full((8, 8), 2.0**20, np.float32)]
    fidelity = tfamp.gradient_fidelity(
        model, lambda t, y: linear_loss(tf.reshape(t, [8, 8]), tf.reshape(y, [8, 8])),
        [(eye, targets[0])], precisions=FLOAT16,
    )  # fmt: skip
    scales = [p.log2_scale for p in fidelity.precisions]
    assert scales == list(range(-24, 25))
    # A power of two is exact down to the smallest subnormal number, 2^-24.
    assert fidelity.window == Window(log2_min=-24, log2_max=-5)
    assert fidelity.advice.expected_skips == 20
    assert fidelity.window.holds(fidelity.advice.static_scale, fidelity.advice.initial_scale)


def test_an_output_that_overflows_is_named_and_cured():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, use_bias=False, name="hidden")(inputs)
    large = keras.layers.Rescaling(1e6, name="large")(hidden)
    model = keras.Model(inputs, keras.layers.Rescaling(1e-6, dtype="float32", name="back")(large))
    keras.config.set_dtype_policy("mixed_float16")
    for each in model.layers[1:3]:
        each.dtype_policy = keras.DTypePolicy("mixed_float16")
    keras.config.set_dtype_policy("float32")
    fidelity = tfamp.gradient_fidelity(
        model, "mse", [(normal(8, 4), normal(8, 4))], precisions=FLOAT16, log2_scales=[0, 8]
    )
    assert fidelity.window is None
    assert says(fidelity.why, "large", "way forward")
    assert [path.split("/")[-1] for path in fidelity.advice.float32_layers] == ["large"]
    assert fidelity.advice.static_scale is not None


@pytest.mark.slow
def test_a_gradient_that_is_zero_in_part():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Activation("tanh")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    before = [np.array(w) for w in model.weights]
    # The bias, which counts together with the kernel.
    fidelity = tfamp.gradient_fidelity(
        model, "mse", [(normal(4, 6, 6, 2), normal(4, 2))], log2_scales=[0, 10]
    )
    assert at(layer(fidelity, "conv").points, 10).relative_error < 0.05
    assert fidelity.window == Window(log2_min=0, log2_max=10, is_open=True)
    for weight, value in zip(model.weights, before, strict=True):
        assert (np.array(weight) == value).all()


class Bias(keras.layers.Layer):
    def build(self, shape):
        self.bias = self.add_weight(shape=(shape[-1],), name="bias")

    def call(self, inputs):
        return inputs + self.bias


def test_a_layer_whose_gradient_is_zero_takes_no_part():
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, use_bias=False, name="dense")(inputs)
    x = Bias(name="zero")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Activation("tanh")(x)))
    fidelity = tfamp.gradient_fidelity(
        model, "mse", [(normal(32, 5), normal(32, 2))], log2_scales=[0, 10]
    )
    zero = layer(fidelity, "zero")
    assert zero.window is None and says(zero.why, "zero up to rounding")
    assert at(zero.points, 10).relative_error < 0.05
    assert at(zero.points, precision="float32").relative_error < 1e-4
    assert fidelity.window == Window(log2_min=0, log2_max=10, is_open=True)


@pytest.mark.parametrize(
    ("part", "where"), [("inputs", "inputs"), ("targets", "targets"), ("weights", "d/kernel")]
)
def test_a_loss_that_is_not_finite_in_float64_is_no_fault_of_a_precision(part, where):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    inputs, targets = normal(4, 3), normal(4, 2)
    if part == "inputs":
        inputs[1, 1] = np.nan
    elif part == "targets":
        targets[0, 0] = np.inf
    else:
        model.layers[-1].kernel.assign(np.full((3, 2), np.inf))
    with pytest.raises(NonFiniteReference) as raised:
        tfamp.gradient_fidelity(model, "mse", [(inputs, targets)])
    assert raised.value.where.endswith(where)
    assert says(str(raised.value), "float64", where)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_where_a_loss_that_is_not_finite_starts():
    inputs = keras.Input((3,))
    log = keras.layers.Lambda(lambda x: tf.math.log(x), name="log")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(log))
    with pytest.raises(NonFiniteReference) as raised:
        tfamp.gradient_fidelity(model, "mse", [(-np.ones((2, 3)), np.ones((2, 1)))])
    assert raised.value.where == "log"


def test_a_gradient_that_is_not_finite_starts_on_the_way_back():
    inputs = keras.Input((3,))
    dense = keras.layers.Dense(3, kernel_initializer="zeros", name="dense")(inputs)
    root = keras.layers.Lambda(lambda x: tf.sqrt(x), name="root")(dense)
    model = keras.Model(inputs, root)
    with pytest.raises(NonFiniteReference) as raised:
        tfamp.gradient_fidelity(model, "mse", [(np.ones((2, 3)), np.ones((2, 3)))])
    assert raised.value.where.endswith("dense")
    assert says(str(raised.value), "finite loss")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"precisions": ()}, ("precisions=()", "mixed_float16")),
        ({"precisions": ["float16"]}, ("precisions", "float16", "mixed_float16")),
        ({"precisions": ["mixed_float61"]}, ("mixed_float61", "mixed_float16", "precisions")),
        ({"log2_scales": []}, ("log2_scales=()", "whole numbers")),
        ({"log2_scales": [0.5]}, ("log2_scales", "0.5")),
        ({"log2_scales": [True]}, ("log2_scales", "True")),
        ({"log2_scales": [400]}, ("log2_scales", "400", "100")),
        ({"log2_scales": 7}, ("log2_scales=7", "range(25)")),
        ({"batches": []}, ("batches=[]", "(inputs, targets)")),
        ({"batches": [np.ones((2, 3))]}, ("batches", "batch 0", "ndarray")),
        ({"batches": [(np.ones((2, 3)),)]}, ("batches", "tuple of 1")),
        ({"batches": [(np.ones((0, 3)), np.ones((0, 2)))]}, ("batches", "no examples")),
    ],
)
def test_arguments_that_cannot_be(arguments, said):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    given = {"batches": [(np.ones((2, 3)), np.ones((2, 2)))]} | arguments
    with pytest.raises(InputError) as raised:
        tfamp.gradient_fidelity(model, "mse", given.pop("batches"), **given)
    assert says(str(raised.value), *said)


def test_without_float16_there_is_no_window_and_no_advice():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    batches = [(normal(4, 3), normal(4, 2)), (normal(2, 3), normal(2, 2))]
    fidelity = tfamp.gradient_fidelity(model, "mse", batches, precisions=["mixed_bfloat16"])
    assert [p.precision for p in fidelity.precisions] == ["mixed_bfloat16"]
    assert fidelity.window is fidelity.error_budget is fidelity.advice is None
    assert says(fidelity.why, "mixed_float16")
    assert fidelity.num_batches == 2


@pytest.mark.slow
def test_batches_pool():
    """Two batches of one example each beside what each has alone."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    batches = [(normal(4, 3), normal(4, 2)), (10 * normal(4, 3), normal(4, 2))]

    def squares(batches):
        fidelity = tfamp.gradient_fidelity(model, "mse", batches, precisions=["mixed_bfloat16"])
        point = at(fidelity.precisions, precision="mixed_bfloat16")
        histogram = layer(fidelity, "d").weight_exponents
        return point.relative_error**2, sum(histogram.counts) + histogram.zeros

    (first, count), (second, _), (both, both_count) = (
        squares(batches[:1]), squares(batches[1:]), squares(batches)
    )  # fmt: skip
    assert min(first, second) < both < max(first, second)
    assert (count, both_count) == (8, 16)


def test_the_budget_adds_up(linear):
    budget = linear.error_budget
    # Inputs and weights are exact in float16: nothing is rounded on the way forward.
    assert (budget.forward, budget.backward) == (0, 0)
    assert budget.best_log2_scale == 6
    at_1 = at(linear.precisions, 0).relative_error
    assert budget.underflow_at_scale_1 == pytest.approx(at_1)
    assert [each.path.split("/")[-1] for each in budget.layers] == ["dense"]
    assert budget.num_examples == 23


def test_layers_are_ranked_by_what_their_float32_removes():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(6, name="exact", kernel_initializer="identity", use_bias=False),
            keras.layers.Dense(6, name="rough", activation="tanh"),
            keras.layers.Dense(1, dtype="float32", name="head"),
        ]
    )
    inputs = RANDOM.integers(-8, 8, (16, 6)).astype(np.float32)
    fidelity = tfamp.gradient_fidelity(
        model, "mse", [(inputs, normal(16, 1))], precisions=FLOAT16, log2_scales=[10]
    )
    budget = fidelity.error_budget
    assert budget.layers[0].path.split("/")[-1] in ("rough", "head")
    assert budget.layers[0].removed > 0.2
    removed = [each.removed for each in budget.layers]
    assert removed == sorted(removed, reverse=True)
    for each in budget.layers:
        assert each.removed == pytest.approx(
            1 - each.relative_error / at(fidelity.precisions, 10).relative_error, abs=1e-3
        )
