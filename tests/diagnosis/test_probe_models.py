"""The probe on what trips those who compare two precisions of a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfamp.diagnosis.probe import Probe
from tfamp.precision.policy import global_policy

X = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
Y = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")


def gradients(taken):
    return np.concatenate([np.ravel(w.gradient).astype("float64") for w in taken.weights])


def error(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


def of_layers(*layers, shape=(5,), dtype=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, dtype=dtype)
    hidden = inputs
    for layer in layers:
        hidden = layer(hidden)
    return keras.Model(inputs, hidden)


def dense(*args, **kwargs):
    return keras.layers.Dense(*args, **kwargs)


def outputs_of(taken, path):
    return next(call.outputs[0] for call in taken.calls if call.path == path)


def test_layers_that_were_put_in_float32_stay_there():
    with global_policy("mixed_float16"):
        model = of_layers(dense(4, name="low"), dense(3, dtype="float32", name="head"))
    with Probe(model, "mse") as probe:
        half = probe.run((X, Y), probe.mixed("float16"))
        brain = probe.run((X, Y), probe.mixed("bfloat16"))
        single = probe.run((X, Y), probe.mixed("float16", float32=["low"]))
        everywhere = probe.run((X, Y), probe.everywhere("float16"))
    assert outputs_of(half, "low").dtype == np.float16
    assert outputs_of(half, "head").dtype == np.float32
    assert outputs_of(brain, "low").dtype.name == "bfloat16"
    assert outputs_of(single, "low").dtype == np.float32
    assert outputs_of(everywhere, "head").dtype == np.float16
    with pytest.raises(ValueError, match="nowhere"):
        probe.mixed("float16", float32=["nowhere"])
    with pytest.raises(ValueError, match=r"float8.*float16, bfloat16, float32, float64"):
        probe.mixed("float8")


def test_a_map_of_policies_stays_as_it_is():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16")
    policies["low"] = keras.DTypePolicy("float32")
    layers = [dense(4, name="low", dtype=policies), dense(3, name="head", dtype=policies)]
    model = of_layers(*layers)
    with Probe(model, "mse") as probe:
        taken = probe.run((X, Y), probe.mixed("float16"))
        probe.run((X, Y), probe.everywhere("float64"))
    assert outputs_of(taken, "low").dtype == np.float32
    assert outputs_of(taken, "head").dtype == np.float16
    assert {path: policy.name for path, policy in policies.items()} == {"low": "float32"}
    assert all(layer.dtype_policy is policies for layer in layers)


class Fused(keras.layers.Layer):
    """Its kernel has no float64."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, inputs):
        images = tf.reshape(inputs, [tf.shape(inputs)[0], 1, 1, inputs.shape[-1]])
        gain = tf.cast(self.gain, tf.float32)
        found, _, _ = tf.compat.v1.nn.fused_batch_norm(images, gain, tf.zeros_like(gain))
        return tf.reshape(found, tf.shape(inputs))


@pytest.mark.parametrize("eager", [False, True])
def test_a_layer_without_float64_is_named_and_left_out(eager):
    model = of_layers(dense(5, name="first"), Fused(name="fused"), dense(3, name="head"))
    with Probe(model, "mse") as probe:
        exact = probe.run((X, Y), probe.everywhere("float64"), eager=eager)
        probe.run((X, Y), probe.everywhere("float64"), eager=eager)
    assert outputs_of(exact, "first").dtype == outputs_of(exact, "head").dtype == np.float64
    assert outputs_of(exact, "fused").dtype == np.float32
    [sentence] = probe.left_out
    assert sentence.startswith("fused cannot compute in float64, and stays in float32")


def test_a_layer_that_cannot_be_called_at_all_is_an_error():
    class Broken(keras.layers.Layer):
        def call(self, inputs):
            if self.is_broken:
                raise RuntimeError("no such kernel")
            return inputs

    broken = Broken(name="broken")
    broken.is_broken = False
    model = of_layers(dense(3), broken)
    broken.is_broken = True
    with Probe(model, "mse") as probe, pytest.raises(ValueError, match=r"'broken'.*no such kernel"):
        probe.run((X, Y), probe.mixed("float16"))


class Compiled(keras.layers.Layer):
    """A `tf.function` of the user's, which keeps the trace of its first precision."""

    def __init__(self, branches, **kwargs):
        super().__init__(**kwargs)
        self.branches = branches

    @tf.function
    def work(self, inputs):
        if self.branches and tf.reduce_sum(inputs) > 1e30:
            inputs = inputs * 2.0
        return tf.cast(inputs, self.compute_dtype) * 2.0

    def call(self, inputs):
        return self.work(tf.cast(inputs, tf.float32))


@pytest.mark.parametrize("branches", [False, True])
def test_an_inner_function_computes_in_what_its_layer_does_now(branches):
    model = of_layers(dense(3), Compiled(branches, name="inner"))
    with global_policy("float32"), Probe(model, "mse") as probe:
        for dtype in ("float16", "bfloat16", "float32"):
            taken = probe.run((X, Y), probe.mixed(dtype))
            assert outputs_of(taken, "inner").dtype.name == dtype
    assert [("inner" in line and "eagerly" in line) for line in probe.left_out] == [True] * branches


def test_whole_numbers_reach_a_reference_unrounded():
    with global_policy("mixed_float16"):
        model = keras.Sequential([keras.layers.Embedding(3000, 3)])
        model.build((None, 1))
    ids, targets = np.array([[2049], [2051]], "int32"), np.zeros((2, 1, 3), "float32")
    assert model.inputs[0].dtype == "float16", "Keras rounds ids here; see if it still does."

    def rows(taken):
        return np.flatnonzero(np.abs(taken.weights[0].gradient).sum(axis=1)).tolist()

    with Probe(model, "mse") as probe:
        assert rows(probe.run((ids, targets), probe.everywhere("float64"))) == [2049, 2051]
        assert rows(probe.run((ids, targets), probe.mixed("float32"))) == [2049, 2051]
        assert rows(probe.run((ids, targets), probe.mixed("float16"))) == [2048, 2052]
        assert rows(probe.run((ids, targets), probe.mixed("bfloat16"))) == [2048]
    assert model.inputs[0].dtype == "float16"


def test_a_layer_that_is_called_twice_has_two_calls_and_one_gradient():
    shared = dense(5, name="shared")
    model = of_layers(shared, shared, dense(3))
    with Probe(model, "mse") as probe:
        taken = probe.run((X, Y), probe.everywhere("float64"))
    assert [call.path for call in taken.calls].count("shared") == 2
    assert [weight.path for weight in taken.weights] == ["shared"] * 2 + [model.layers[-1].path] * 2


@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN])
def test_what_happens_inside_a_loop_is_said_to_be_unseen(kind):
    model = of_layers(kind(4, name="rnn", dropout=0.2, seed=1), dense(3), shape=(6, 2))
    series = np.random.default_rng(2).normal(size=(4, 6, 2)).astype("float32")
    with Probe(model, "mse", seed=0) as probe:
        exact = gradients(probe.run((series, Y), probe.everywhere("float64")))
        half = gradients(probe.run((series, Y), probe.mixed("float16")))
        single = gradients(probe.run((series, Y), probe.mixed("float32")))
        forward = gradients(probe.run((series, Y), probe.mixed("float16", only_forward=True)))
    assert error(single, exact) < 1e-5
    assert 1e-5 < error(half, exact) < 0.05
    assert 1e-5 < error(forward, exact) < 0.05
    assert any("loop" in sentence for sentence in probe.left_out)


def test_attention_with_dropout_and_a_custom_gradient():
    inputs = keras.Input((6, 8))
    attended = keras.layers.MultiHeadAttention(2, 4, dropout=0.3, seed=1)(inputs, inputs)
    hidden = keras.layers.LayerNormalization()(keras.layers.Add()([inputs, attended]))
    hidden = keras.layers.Activation("silu")(keras.layers.Dense(8)(hidden))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(hidden)))
    tokens = np.random.default_rng(2).normal(size=(4, 6, 8)).astype("float32")
    with Probe(model, "mse", seed=0) as probe:
        exact = gradients(probe.run((tokens, Y), probe.everywhere("float64")))
        single = gradients(probe.run((tokens, Y), probe.mixed("float32")))
        half = gradients(probe.run((tokens, Y), probe.mixed("float16"), 2.0**8)) / 2**8
        precision = probe.mixed("float16", only_forward=True)
        forward = gradients(probe.run((tokens, Y), precision, eager=True))
    assert error(single, exact) < 1e-5
    assert 1e-5 < error(forward, exact) < 0.02
    assert 1e-5 < error(half, forward) < 0.02


def test_a_layer_that_assigns_its_own_weights_is_put_back():
    wrapped = keras.layers.SpectralNormalization(dense(3))
    model = of_layers(wrapped)
    before = [np.array(v.numpy()) for v in model.variables]
    with Probe(model, "mse") as probe:
        first = probe.run((X, Y), probe.everywhere("float64"))
        second = probe.run((X, Y), probe.everywhere("float64"))
    np.testing.assert_array_equal(gradients(first), gradients(second))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_what_draws_anew_in_each_pass_is_named():
    class Noise(keras.layers.Layer):
        def call(self, inputs):
            return inputs + tf.random.normal(tf.shape(inputs), dtype=inputs.dtype)

    model = of_layers(dense(3), Noise())
    with Probe(model, "mse") as probe:
        probe.run((X, Y), probe.mixed("float32"))
    assert ["RandomStandardNormal" in line for line in probe.left_out] == [True]


def test_variables_in_16_bits_stay_so():
    with global_policy("float16"):
        model = of_layers(dense(3))
    with Probe(model, "mse") as probe:
        exact = probe.run((X, Y), probe.everywhere("float64"))
        half = probe.run((X, Y), probe.mixed("float16"))
    assert error(gradients(half), gradients(exact)) < 0.01
    assert {v.dtype for v in model.variables} == {"float16"}


class OwnLoss(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 7.0 * keras.ops.mean(keras.ops.square(y_pred - y))


def scalar_of_float32(targets, outputs):
    return tf.reduce_mean(tf.square(tf.cast(outputs, tf.float32) - targets))


def per_example(targets, outputs):
    return tf.reduce_mean(tf.square(outputs - targets), axis=-1)


@pytest.mark.parametrize(
    "loss",
    ["mse", "MeanSquaredError", keras.losses.MeanSquaredError(), keras.losses.mean_squared_error]
    + [scalar_of_float32, per_example, keras.losses.MeanSquaredError],
)
def test_a_loss_of_any_form(loss):
    model = of_layers(dense(3))
    expected = np.mean((model(X).numpy() - Y) ** 2)
    with Probe(model, loss() if loss is keras.losses.MeanSquaredError else loss) as probe:
        exact = probe.run((X, Y), probe.everywhere("float64"))
        single = probe.run((X, Y), probe.mixed("float32"))
    assert exact.loss == pytest.approx(expected, rel=1e-6)
    assert single.loss == pytest.approx(expected, rel=1e-6)


def test_the_models_own_loss_and_what_it_adds():
    keras.utils.set_random_seed(0)
    model = OwnLoss()
    model(X)
    with Probe(model) as probe:
        taken = probe.run((X, Y), probe.everywhere("float64"))
    assert taken.loss == pytest.approx(7 * np.mean((model(X).numpy() - Y) ** 2), rel=1e-6)

    model = of_layers(dense(3, kernel_regularizer=keras.regularizers.L2(0.5)))
    with Probe(model) as probe:
        taken = probe.run((X, Y), probe.everywhere("float64"))
    assert taken.loss == pytest.approx(0.5 * np.sum(model.layers[-1].kernel.numpy() ** 2))

    with pytest.raises(ValueError, match="compiled without one"):
        Probe(of_layers(dense(3)))
    with pytest.raises(ValueError, match="no weights yet"):
        Probe(OwnLoss())


def test_sample_weights_and_losses_by_output():
    weights = np.array([1.0, 0.0, 2.0, 0.0], "float32")
    model = of_layers(dense(3))
    each = np.mean((model(X).numpy() - Y) ** 2, axis=-1)
    for loss in ("mse", per_example):
        with Probe(model, loss) as probe:
            taken = probe.run((X, Y, weights), probe.everywhere("float64"))
        assert taken.loss == pytest.approx(np.mean(each * weights), rel=1e-6)
    with Probe(model, scalar_of_float32) as probe, pytest.raises(ValueError, match="one per exam"):
        probe.run((X, Y, weights), probe.mixed("float32"))

    inputs = keras.Input([5])
    heads = {"a": dense(3, name="a")(inputs), "b": dense(1, name="b")(inputs)}
    model = keras.Model(inputs, heads)
    model.compile(loss={"a": "mse", "b": "mae"}, loss_weights={"a": 2.0, "b": 0.5})
    targets = {"a": Y, "b": Y[:, :1]}
    found = {name: value.numpy() for name, value in model(X).items()}
    expected = 2.0 * np.mean((found["a"] - Y) ** 2) + 0.5 * np.mean(np.abs(found["b"] - Y[:, :1]))
    with Probe(model) as probe:
        taken = probe.run((X, targets), probe.everywhere("float64"))
    assert taken.loss == pytest.approx(expected, rel=1e-6)
    assert not model._compile_loss.built


def test_a_loss_in_16_bits_is_scaled_in_32():
    with global_policy("mixed_float16"):
        model = of_layers(dense(3))
    with Probe(model, per_example) as probe:
        taken = probe.run((X, Y.astype("float16")), probe.mixed("float16"), 2.0**20)
    assert taken.loss.dtype == np.float32
    assert np.isinf(gradients(taken)).any() and np.isfinite(taken.loss)


def test_a_read_sees_the_pass_and_what_is_given():
    model = of_layers(dense(3, name="head"))
    traced = []

    @tf.function(jit_compile=True)
    def doubled(value):
        return value * 2.0

    def read(taken, references):
        traced.append(1)
        assert doubled(taken.loss).op.type.endswith("PartitionedCall"), "A function stays one."
        pairs = zip(taken.weights, references, strict=True)
        return {"norms": [tf.norm(w.gradient - r) for w, r in pairs], "name": taken.weights[0].path}

    with Probe(model, "mse", jit_compile=True) as probe:
        references = [w.gradient for w in probe.run((X, Y), probe.mixed("float32")).weights]
        found = [
            probe.run((X, Y), probe.mixed("float32"), scale, read, [references])
            for scale in (1.0, 2.0, 4.0)
        ]
    assert len(traced) == 1
    assert found[0]["name"] == "head" and found[0]["norms"] == [0.0, 0.0]
    assert 3 * found[1]["norms"][0] == pytest.approx(found[2]["norms"][0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_graph_rounds_what_each_operation_does(dtype):
    # Grappler would fuse the product, the bias and the activation, and round once.
    model = of_layers(dense(32, activation="gelu"), dense(32, activation="tanh"), dense(3))
    options = tf.config.optimizer.get_experimental_options()
    with Probe(model, "mse") as probe:
        precision = probe.everywhere(dtype)
        graph = probe.run((X, Y), precision)
        eager = probe.run((X, Y), precision, eager=True)
    np.testing.assert_array_equal(gradients(graph), gradients(eager))
    after = tf.config.optimizer.get_experimental_options()
    assert {**options, "disable_meta_optimizer": False} == after
