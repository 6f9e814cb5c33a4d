"""The underflow meter counts what float16 loses, to the entry, and leaves training as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow
from tests.messages import says
from tfamp.precision.underflow import OTHERS, UnderflowMeter
from tfamp.precision.underflow_counts import FIRST_EXPONENT

FLOAT16 = "mixed_float16"


def stepped(model, batch, of="weights", is_traced=False, jit_compile=False, optimizers=None):
    """Takes a metered step of a compiled model; returns what was measured."""
    model.optimizer.build(model.trainable_variables)
    meter = UnderflowMeter(1, of)
    meter.begin(model, optimizers or {"": model.optimizer})
    step = meter.around(model.train_step, jit_compile)
    if is_traced:
        step = tf.function(step, autograph=False)
    step(keras.tree.map_structure(tf.convert_to_tensor, batch))
    return meter.read()


def set_weights(model, *values):
    model.set_weights([np.float32(each) for each in values])


def sum_of(targets, outputs):
    """A loss that is linear in each output: the targets are what its gradient is."""
    return targets * outputs


def linear(*layers, scale=1.0, loss=sum_of, **compiled):
    """A model of a loss scale that stays."""
    keras.config.set_dtype_policy(FLOAT16)
    model = keras.Sequential(list(layers))
    optimizer = tfamp.LossScaleOptimizer("sgd", initial_scale=scale, dynamic=False)
    model.compile(optimizer, loss=loss, **compiled)
    return model


def exponents_of(layer):
    return {FIRST_EXPONENT + i: count for i, count in enumerate(layer.exponents) if count}


# The gradient of weight i is 2^-8 times input i: 2^-8 ... 2^-30, and two that are zero anyway.
MAGNITUDES = 2.0 ** -np.arange(8, 31)
INPUTS = np.concatenate([MAGNITUDES * 2.0**8, [0.0, 0.0]]).astype("float32")[None]
BATCH = (INPUTS, np.float32([[2.0**-8]]))
SMALLEST = 2.0**-25  # what rounds to zero in float16: half its smallest number, and less


@pytest.mark.parametrize(
    ("log2_scale", "jit_compile"),
    [(0, False), (4, False), (8, False), (15, False), slow(0, True), slow(8, True)],
)
def test_linear_model_loses_what_the_format_says_to_the_entry(log2_scale, jit_compile):
    scale = 2.0**log2_scale
    dense = keras.layers.Dense(1, use_bias=False, dtype=FLOAT16)
    model = linear(keras.Input([25]), dense, scale=scale)
    (found,) = stepped(model, BATCH, is_traced=log2_scale == 0, jit_compile=jit_compile)
    (layer,) = found.layers.values()
    lost = (MAGNITUDES * scale <= SMALLEST) & (MAGNITUDES * scale * 256 > SMALLEST)
    zeros = int(np.sum(MAGNITUDES * scale <= SMALLEST)) + 2
    assert (layer.entries, layer.zeros, layer.lost) == (25, zeros, int(np.sum(lost)))
    assert found.lost_fraction == layer.lost_fraction == np.sum(lost) / 25
    assert (layer.non_finite, layer.unjudged) == (0, 0)
    expected = {-n: 1 for n in range(8, 31) if 2.0**-n * scale > SMALLEST}
    assert exponents_of(layer) == expected
    assert found.scales == {"": scale}


def test_exponents_are_exact_beside_a_power_of_two_and_under_any_scale():
    dense = keras.layers.Dense(1, use_bias=False, dtype=FLOAT16)
    inputs = np.float32([[1.0, np.nextafter(np.float16(1), np.float16(0)), 3.0, 0.75]])
    model = linear(keras.Input([4]), dense, scale=1000.0)
    (found,) = stepped(model, (inputs, np.float32([[1.0]])))
    (layer,) = found.layers.values()
    # 1000 times 0.9995 is 999.5, and a float16: nothing is rounded.
    assert exponents_of(layer) == {-1: 2, 0: 1, 1: 1}


def test_zeros_behind_a_relu_are_not_lost():
    first = keras.layers.Dense(3, activation="relu", use_bias=False, dtype=FLOAT16)
    last = keras.layers.Dense(1, use_bias=False, dtype=FLOAT16)
    model = linear(keras.Input([2]), first, last)
    set_weights(model, [[1, -1, 1], [1, -1, 1]], [[1], [1], [2.0**-24]])
    batch = (np.float32([[1, 2.0**-3]]), np.float32([[1.0]]))
    (found,) = stepped(model, batch)
    behind = found.layers[first.path]
    # The second unit is dead; of the third one gradient is 2^-24, and the other 2^-27.
    assert (behind.entries, behind.zeros, behind.lost) == (6, 3, 1)
    (seen,) = stepped(model, batch, of="activations")
    assert (seen.layers[first.path].entries, seen.layers[first.path].lost) == (3, 0)


def test_layers_below_an_overflow_at_256_times_the_scale_are_judged():
    first = keras.layers.Dense(2, use_bias=False, dtype=FLOAT16)
    last = keras.layers.Dense(1, use_bias=False, dtype=FLOAT16)
    model = linear(keras.Input([3]), first, last, scale=2.0**14)
    set_weights(model, np.zeros([3, 2]), [[2.0**-24], [1.0]])
    # Two examples cancel in the last input, to the bit, where nothing is brought to a bound.
    inputs = np.float32([[2.0**-16, 1, 1], [0, 0, -2]])
    (found,) = stepped(model, (inputs, np.float32([[2.0], [1.0]])))
    layer = found.layers[first.path]
    # The gradient is 2^-26 of the first input by the small weight: lost. The others are sums.
    assert (layer.entries, layer.zeros, layer.lost, layer.unjudged) == (6, 3, 1, 0)


def test_entries_that_overflow_are_none_that_are_lost():
    dense = keras.layers.Dense(1, use_bias=False, dtype=FLOAT16)
    model = linear(keras.Input([2]), dense, scale=2.0**15)
    (found,) = stepped(model, (np.float32([[4, 1]]), np.float32([[1.0]])))
    (layer,) = found.layers.values()
    assert (layer.entries, layer.non_finite, layer.lost, layer.lost_fraction) == (2, 1, 0, 0.0)
    (found,) = stepped(model, (np.float32([[4, 4]]), np.float32([[1.0]])))
    assert found.lost_fraction is None


class Undecided(keras.layers.Layer):
    """Gives a gradient of infinity less infinity, where it gets one of a thousand or more."""

    def call(self, inputs):
        @tf.custom_gradient
        def identity(value):
            def back(gradient):
                much = gradient * 1e3
                return much - much + tf.zeros_like(gradient)

            return tf.identity(value), back

        return identity(inputs)


def test_what_cannot_be_judged_has_no_share():
    first = keras.layers.Dense(1, use_bias=False, dtype=FLOAT16)
    model = linear(keras.Input([2]), first, Undecided(dtype=FLOAT16))
    (found,) = stepped(model, (np.float32([[1, 1]]), np.float32([[1.0]])))
    (layer,) = found.layers.values()
    assert (layer.zeros, layer.lost, layer.unjudged) == (2, 0, 2)
    assert layer.lost_fraction is None and "lost_fraction" not in layer.to_json()
    assert found.lost_fraction is None and not found.figures()


def test_activations_show_a_fault_that_weights_do_not():
    # One example of 16 has a gradient; those of the others vanish before they are summed.
    first = keras.layers.Dense(4, use_bias=False, dtype=FLOAT16)
    last = keras.layers.Dense(1, use_bias=False, dtype=FLOAT16)
    model = linear(keras.Input([3]), first, last)
    set_weights(model, np.ones([3, 4]), np.full([4, 1], 2.0**-4))
    targets = np.full([16, 1], 2.0**-18, "float32")
    targets[0] = 16.0
    batch = (np.ones([16, 3], "float32"), targets)  # keras takes the mean: a sixteenth of each
    (weights,) = stepped(model, batch)
    (seen,) = stepped(model, batch, of="activations")
    assert weights.lost_fraction == 0.0
    assert seen.layers[first.path].lost_fraction == 15 / 16
    assert seen.layers[last.path].lost_fraction == 0.0
    assert seen.of == "activations"


def test_of_an_embedding_the_rows_that_were_looked_up_count():
    keras.config.set_dtype_policy(FLOAT16)
    layers = [keras.Input([3], dtype="int32"), keras.layers.Embedding(100, 2)]
    model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling1D()])
    optimizer = tfamp.LossScaleOptimizer("sgd", initial_scale=1.0, dynamic=False)
    model.compile(optimizer, loss=sum_of)
    (found,) = stepped(model, (np.int32([[7, 7, 9]]), np.float32([[1.0, 2.0**-26]])))
    (layer,) = found.layers.values()
    assert layer.entries == 4


def deep():
    """All that a rehearsal could disturb: averages, seeds, metrics, a regularizer, `add_loss`."""
    keras.config.set_dtype_policy(FLOAT16)
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(16, kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.ActivityRegularization(0.1, dtype="float32"),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    optimizer = tfamp.LossScaleOptimizer("adam", initial_scale=2.0**24, dynamic_growth_steps=3)
    model.compile(optimizer, loss="mse", metrics=["mae"])
    return model


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [variable.numpy() for variable in variables]


def batches():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=[12, 32, 8]).astype("float32")
    return [(each, each.sum(axis=1, keepdims=True)) for each in inputs]


def trained(meter=None, jit_compile=False):
    """Trains a model, by Keras's step; returns it and what was measured."""
    model = deep()
    model.optimizer.build(model.trainable_variables)
    step = model.train_step
    if meter:
        meter.begin(model, {"": model.optimizer}, log_every=12)
        step = meter.around(step, jit_compile)
    step = tf.function(step, autograph=False, jit_compile=jit_compile and not meter)
    for batch in batches():
        step(batch)
    return model, meter.read() if meter else None


@pytest.mark.parametrize(
    ("of", "jit_compile"),
    [("weights", False), ("activations", False), slow("weights", True), slow("activations", True)],
)
def test_training_is_the_same_to_the_bit(of, jit_compile):
    plain, _ = trained(jit_compile=jit_compile)
    metered, found = trained(UnderflowMeter(2, of), jit_compile)
    assert [each.step for each in found] == [2, 4, 6, 8, 10, 12]
    assert plain.optimizer.skipped_total > 0
    for one, other in zip(state_of(plain), state_of(metered), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_regularizer_is_in_the_gradient():
    model = deep()
    model.optimizer.build(model.trainable_variables)
    model.layers[0].kernel.assign(keras.ops.ones([8, 16]))
    (found,) = stepped(model, (np.zeros([32, 8], "float32"), np.zeros([32, 1], "float32")))
    # The inputs are zero, so that nothing else reaches the kernel: 2 * 0.01 * 1.
    kernel = found.layers[model.layers[0].path]
    assert exponents_of(kernel)[-6] == 8 * 16


@pytest.mark.parametrize("wrapper", [keras.optimizers.LossScaleOptimizer, None])
def test_keras_own_loss_scale_and_none_at_all(wrapper):
    keras.config.set_dtype_policy(FLOAT16)
    model = keras.Sequential([keras.Input([25]), keras.layers.Dense(1, use_bias=False)])
    sgd = keras.optimizers.SGD()
    optimizer = wrapper(sgd, initial_scale=2.0**4) if wrapper else sgd
    model.compile(optimizer, loss=sum_of, auto_scale_loss=False)
    (found,) = stepped(model, BATCH)
    scale = 2.0**4 if wrapper else 1.0
    lost = np.sum((MAGNITUDES * scale <= SMALLEST) & (MAGNITUDES * scale * 256 > SMALLEST))
    assert found.scales == {"": scale}
    assert next(iter(found.layers.values())).lost == lost > 0


def test_replicas_count_their_own_parts_and_are_summed(two_replicas):
    strategy = two_replicas
    keras.config.set_dtype_policy(FLOAT16)
    with strategy.scope():
        model = keras.Sequential([keras.Input([25]), keras.layers.Dense(1, use_bias=False)])
        optimizer = tfamp.LossScaleOptimizer("sgd", initial_scale=1.0, dynamic=False)
        model.compile(optimizer, loss=sum_of)
        optimizer.build(model.trainable_variables)
    meter = UnderflowMeter(2)
    meter.begin(model, {"": optimizer}, log_every=4)
    step = meter.around(model.train_step)
    one_step = tf.function(lambda batch: strategy.run(step, args=(batch,)), autograph=False)
    inputs = np.concatenate([INPUTS, INPUTS * 2.0**-3])
    # Each replica takes the mean over both, a half: its gradient is 2^-9 of its input.
    batch = (inputs, np.float32([[2.0**-8], [2.0**-8]]))
    data = tf.data.Dataset.from_tensors(batch).unbatch().batch(2).repeat(4)
    for parts in strategy.experimental_distribute_dataset(data):
        one_step(parts)
    first, second = meter.read()
    assert (first.step, second.step) == (2, 4)
    gradients = np.concatenate([MAGNITUDES / 2, MAGNITUDES / 16])
    lost = np.sum((gradients <= SMALLEST) & (gradients * 256 > SMALLEST))
    (layer,) = first.layers.values()
    assert (layer.entries, layer.lost) == (50, lost)


class OwnStep(keras.Model):
    """A model with a train_step of its own, whose tape is not Keras's, and a weight of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, use_bias=False, name="dense")
        self.shift = self.add_weight(shape=(1,), initializer="zeros", name="shift")
        self.count = tf.Variable(0.0, trainable=False)
        self.loose = tf.Variable(1.0)

    def call(self, inputs):
        return self.dense(inputs) + self.shift

    def train_step(self, batch):
        return self.own(batch)

    def own(self, batch):
        inputs, targets = batch
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(self(inputs), tf.float32) * targets)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}

    def unscaled(self, batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(self(batch[0]), tf.float32) * batch[1])
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables))
        return {"loss": loss}

    def counting(self, batch):
        self.count.assign_add(1.0)
        return self.own(batch)

    def drawing(self, batch):
        return self.own((batch[0] + tf.random.normal([1]), batch[1]))

    def without(self, batch):
        return {"loss": tf.reduce_sum(self(batch[0]))}


def own_step(name="own"):
    keras.config.set_dtype_policy(FLOAT16)
    keras.utils.set_random_seed(1)
    model = OwnStep()
    optimizer = tfamp.LossScaleOptimizer("sgd", initial_scale=1.0, dynamic=False)
    model.compile(optimizer)
    model(INPUTS)
    method = getattr(model, name)
    model.train_step = method
    return model


def test_a_train_step_of_the_users_is_measured_as_it_is():
    model = own_step()
    (found,) = stepped(model, BATCH)
    lost = np.sum((MAGNITUDES <= SMALLEST) & (MAGNITUDES * 256 > SMALLEST))
    assert found.layers[model.dense.path].lost == lost
    assert exponents_of(found.layers[model.name]) == {-8: 1}
    assert OTHERS not in found.layers
    plain = own_step()
    plain.train_step(keras.tree.map_structure(tf.convert_to_tensor, BATCH))
    for one, other in zip(model.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unscaled", ("scale_loss",)),
        ("without", ("apply",)),
        ("counting", ("tf.Variable", "keras.Variable")),
        ("drawing", ("keras.random",)),
        ("compiled", ("optimizer.scale_loss", "tf.function")),
    ],
)
def test_a_step_that_cannot_be_rehearsed_is_refused_and_left_alone(name, expected):
    model = own_step("own" if name == "compiled" else name)
    if name == "compiled":
        model.train_step = tf.function(model.own, autograph=False)
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(ValueError) as error:
        stepped(model, BATCH, is_traced=True)
    assert says(str(error.value), *expected)
    for one, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, variable.numpy())
    # Tapes and optimizers are themselves again.
    assert "apply" not in vars(model.optimizer)
    assert not tf.GradientTape()._persistent


class Looping(keras.layers.Layer):
    """Calls a layer inside a loop, where nobody sees its outputs."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(2, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        (result,) = tf.while_loop(
            lambda x: True, lambda x: (self.inner(x),), (inputs,), maximum_iterations=2
        )
        return result


def test_outputs_in_a_loop_are_told_of_once():
    model = linear(keras.Input([2]), Looping(), keras.layers.Dense(1))
    ones = (np.ones([1, 2], "float32"), np.ones([1, 1], "float32"))
    with pytest.warns(UserWarning, match="inner") as told:
        (found,) = stepped(model, ones, of="activations", is_traced=True)
    assert len(told) == 1
    assert not any("inner" in name for name in found.layers)


def test_several_optimizers_have_their_own_scales():
    model = own_step()
    other = tfamp.LossScaleOptimizer("sgd", initial_scale=8.0)
    (found,) = stepped(model, BATCH, optimizers={"own": model.optimizer, "other": other})
    assert found.scales == {"own": 1.0, "other": 8.0}
    assert found.row()["scale/value/other"] == 8.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0,), ("underflow_every=0", 1)),
        ((2.5,), ("underflow_every=2.5",)),
        ((1, "bias"), ("'bias'", "'weights'", "'activations'")),
    ],
)
def test_bad_arguments(arguments, expected):
    with pytest.raises(ValueError) as error:
        UnderflowMeter(*arguments)
    assert says(str(error.value), *expected)


def test_a_model_without_float16_is_refused():
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="mixed_float16") as error:
        UnderflowMeter(3).begin(model, {"": model.optimizer})
    assert says(str(error.value), "underflow_every=3")


def test_the_host_may_read_late_and_often():
    model = linear(keras.Input([2]), keras.layers.Dense(1, dtype=FLOAT16))
    model.optimizer.build(model.trainable_variables)
    meter = UnderflowMeter(2)
    meter.begin(model, {"": model.optimizer}, step=10, log_every=10**6, steps_per_execution=3)
    step = meter.around(model.train_step)
    seen = []
    for taken in range(1, 20):
        step((tf.ones([1, 2]), tf.ones([1, 1])))
        if taken in (1, 4, 5, 19):
            seen.append([each.step for each in meter.read()])
    assert seen == [[], [12, 14], [], [16, 18, 20, 22, 24, 26, 28]]
    assert meter.longest_wait > 100
