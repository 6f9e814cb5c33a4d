"""What is saved comes back exactly, and training goes on as if it had not stopped."""

import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow
from tfamp.precision.recorded_optimizer import RecordedOptimizer

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(96, 4)).astype("float32")
TARGETS = RNG.normal(size=(96, 1)).astype("float32")
# In every fifth batch of 8 a loss that is finite and whose gradient is not, in float16: the scale
# moves down there and up in between.
TARGETS[::40] = 1e9


def built_model(optimizer, build=True, seed=0):
    """A compiled model in mixed_float16; its optimizer too is built, unless told otherwise."""
    keras.config.set_dtype_policy("mixed_float16")
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="tanh"),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(optimizer, loss="mse")
    if build:
        optimizer.build(model.trainable_variables)
    return model


def new_optimizer(accumulation=None, **values):
    inner = keras.optimizers.AdamW(
        0.01, use_ema=True, global_clipnorm=1.0, gradient_accumulation_steps=accumulation
    )
    return tfamp.LossScaleOptimizer(inner, **({"dynamic_growth_steps": 3} | values))


def stock_optimizer(**values):
    inner = keras.optimizers.AdamW(0.01, use_ema=True, global_clipnorm=1.0)
    return keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=3, **values)


def train(model, start, stop):
    """Takes batches start..stop of 8; returns their losses."""
    losses = []
    for i in range(start, stop):
        batch = slice(8 * i, 8 * i + 8)
        losses.append(float(model.train_on_batch(INPUTS[batch], TARGETS[batch])))
        model.reset_metrics()
    return losses


def state_of(optimizer):
    """Every variable's value, by path within its optimizer."""
    names = [variable.path.split("/", 1)[-1] for variable in optimizer.variables]
    return [(n, v.numpy()) for n, v in zip(names, optimizer.variables, strict=True)]


def assert_same(first, second):
    for (name, ours), (_, theirs) in zip(state_of(first), state_of(second), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def checkpoint(model, path):
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


def through_keras_file(model, path, accumulation):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def through_weights(model, path, accumulation):
    model.save_weights(path / "model.weights.h5")
    again = built_model(new_optimizer(accumulation), seed=1)
    again.load_weights(path / "model.weights.h5")
    return again


def through_weights_before_build(model, path, accumulation):
    model.save_weights(path / "model.weights.h5")
    again = built_model(new_optimizer(accumulation), build=False, seed=1)
    again.load_weights(path / "model.weights.h5")
    assert not again.optimizer.built
    again.optimizer.build(again.trainable_variables)
    return again


def through_checkpoint(model, path, accumulation):
    saved = checkpoint(model, path).write(str(path / "checkpoint"))
    again = built_model(new_optimizer(accumulation), seed=1)
    checkpoint(again, path).read(saved).assert_existing_objects_matched()
    return again


def through_checkpoint_before_build(model, path, accumulation):
    saved = checkpoint(model, path).write(str(path / "checkpoint"))
    again = built_model(new_optimizer(accumulation), build=False, seed=1)
    status = checkpoint(again, path).read(saved)
    again.optimizer.build(again.trainable_variables)
    status.assert_existing_objects_matched()
    return again


def through_checkpoint_manager(model, path, accumulation):
    tf.train.CheckpointManager(checkpoint(model, path), str(path), max_to_keep=1).save()
    again = built_model(new_optimizer(accumulation), seed=1)
    manager = tf.train.CheckpointManager(checkpoint(again, path), str(path), max_to_keep=1)
    manager.restore_or_initialize()
    return again


WAYS = [
    through_keras_file,
    through_weights,
    through_weights_before_build,
    through_checkpoint,
    through_checkpoint_before_build,
    through_checkpoint_manager,
]


@pytest.mark.parametrize(
    ("way", "accumulation"),
    # Each way with or without, by turns; the other is slow.
    [(way, (4, None)[i % 2]) for i, way in enumerate(WAYS)]
    + [slow(way, (None, 4)[i % 2]) for i, way in enumerate(WAYS)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_run_goes_on_with_the_same_losses(tmp_path, way, accumulation):
    model = built_model(new_optimizer(accumulation))
    train(model, 0, 7)  # With groups of 4 microbatches, in the middle of one.
    optimizer = model.optimizer
    assert optimizer.skipped_total == (2 if accumulation is None else 1)
    again = way(model, tmp_path, accumulation)
    assert type(again.optimizer) is tfamp.LossScaleOptimizer
    assert again.optimizer.get_config() == optimizer.get_config() | {
        "name": again.optimizer.name,
        "inner_optimizer": again.optimizer.get_config()["inner_optimizer"],
    }
    assert_same(again.optimizer, optimizer)
    np.testing.assert_array_equal(train(again, 7, 12), train(model, 7, 12))
    assert_same(again.optimizer, optimizer)


def test_backup_and_restore_goes_on_where_it_was_interrupted(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def run(*extra):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        model = built_model(new_optimizer(), build=False)
        model.fit(INPUTS, TARGETS, batch_size=8, epochs=3, shuffle=False, verbose=0,
                  callbacks=[*extra, backup] if extra else [backup])  # fmt: skip
        return model

    reference = built_model(new_optimizer(), build=False)
    reference.fit(INPUTS, TARGETS, batch_size=8, epochs=3, shuffle=False, verbose=0)
    backup_first = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    model = built_model(new_optimizer(), build=False)
    with pytest.raises(KeyboardInterrupt):
        model.fit(INPUTS, TARGETS, batch_size=8, epochs=3, shuffle=False, verbose=0,
                  callbacks=[backup_first, Interrupt()])  # fmt: skip
    resumed = run()
    assert resumed.optimizer.steps_attempted == 36
    assert_same(resumed.optimizer, reference.optimizer)
    for ours, theirs in zip(resumed.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_stock_keras_drops_the_scale_with_a_warning(tmp_path):
    # The defect: what `through_weights_before_build` does, on Keras's own optimizer.
    model = built_model(stock_optimizer())
    train(model, 0, 7)
    model.save_weights(tmp_path / "model.weights.h5")
    again = built_model(stock_optimizer(), build=False)
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        again.load_weights(tmp_path / "model.weights.h5")
    again.optimizer.build(again.trainable_variables)
    assert model.optimizer.dynamic_scale.numpy() != again.optimizer.dynamic_scale.numpy()


@pytest.mark.parametrize("build", [True, False])
@pytest.mark.parametrize("suffix", ["keras", "weights.h5"])
def test_a_file_of_stock_keras_gives_scale_counter_and_inner_state(tmp_path, suffix, build):
    stock = built_model(stock_optimizer())
    train(stock, 0, 7)
    path = tmp_path / f"model.{suffix}"
    stock.save(path) if suffix == "keras" else stock.save_weights(path)
    model = built_model(new_optimizer(), build, seed=1)
    model.load_weights(path)
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    assert optimizer.scale == stock.optimizer.dynamic_scale.numpy() != optimizer.initial_scale
    assert optimizer.growth_counter == stock.optimizer.step_counter.numpy() == 1
    assert (optimizer.steps_attempted, optimizer.skipped_total) == (0, 0)
    assert_same(optimizer.inner_optimizer, stock.optimizer.inner_optimizer)
    np.testing.assert_array_equal(train(model, 7, 12), train(stock, 7, 12))


def test_a_checkpoint_of_stock_keras_gives_scale_counter_and_inner_state(tmp_path):
    stock = built_model(stock_optimizer())
    train(stock, 0, 7)
    path = checkpoint(stock, tmp_path).write(str(tmp_path / "checkpoint"))
    model = built_model(new_optimizer(), seed=1)
    checkpoint(model, tmp_path).read(path).expect_partial()
    assert model.optimizer.scale == stock.optimizer.dynamic_scale.numpy()
    assert model.optimizer.growth_counter == 1
    np.testing.assert_array_equal(train(model, 7, 12), train(stock, 7, 12))


def test_a_file_without_a_scale_gives_the_inner_state_and_leaves_the_scale(tmp_path):
    bare = built_model(keras.optimizers.AdamW(0.01, use_ema=True, global_clipnorm=1.0))
    bare.compile(keras.optimizers.AdamW(0.01, use_ema=True), loss="mse", auto_scale_loss=False)
    bare.train_on_batch(INPUTS[8:16], TARGETS[8:16])
    bare.save_weights(tmp_path / "bare.weights.h5")
    unscaled = built_model(RecordedOptimizer(keras.optimizers.AdamW(0.01, use_ema=True)))
    unscaled.train_on_batch(INPUTS[8:16], TARGETS[8:16])
    unscaled.save_weights(tmp_path / "unscaled.weights.h5")
    for name, source in (("bare", bare.optimizer), ("unscaled", unscaled.optimizer)):
        model = built_model(new_optimizer(initial_scale=256.0), seed=1)
        model.load_weights(tmp_path / f"{name}.weights.h5")
        assert model.optimizer.scale == 256.0
        assert_same(model.optimizer.inner_optimizer, getattr(source, "inner_optimizer", source))


def test_a_file_without_an_optimizer_is_loaded_in_silence(tmp_path):
    source = built_model(new_optimizer(), build=False)
    source.save_weights(tmp_path / "unbuilt.weights.h5")
    built_model(stock_optimizer(), build=False).save_weights(tmp_path / "stock.weights.h5")
    keras.Sequential([keras.Input((4,)), *source.layers]).save_weights(tmp_path / "none.weights.h5")
    for name in ("unbuilt", "stock", "none"):
        model = built_model(new_optimizer())
        train(model, 0, 3)
        before = state_of(model.optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.load_weights(tmp_path / f"{name}.weights.h5")
        for (key, old), (_, new) in zip(before, state_of(model.optimizer), strict=True):
            np.testing.assert_array_equal(old, new, err_msg=key)


def test_a_static_scale_is_an_argument_and_no_state(tmp_path):
    source = built_model(new_optimizer())
    train(source, 0, 7)
    source.save_weights(tmp_path / "model.weights.h5")
    model = built_model(new_optimizer(initial_scale=64.0, dynamic=False))
    model.load_weights(tmp_path / "model.weights.h5")
    assert (model.optimizer.scale, model.optimizer.steps_attempted) == (64.0, 7)


def test_loading_what_does_not_fit_is_an_error_and_changes_nothing(tmp_path):
    source = built_model(new_optimizer(accumulation=4))
    train(source, 0, 3)
    source.save_weights(tmp_path / "group.weights.h5")
    source.optimizer.dynamic_scale.assign(2.0**30)
    source.optimizer._state.microbatch.assign(0)
    source.save_weights(tmp_path / "scale.weights.h5")
    cases = [
        ("group", new_optimizer(), "after microbatch 3"),
        ("scale", new_optimizer(), r"scale is 1\.07374e\+09, outside"),
        ("group", tfamp.LossScaleOptimizer(
            keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)), "reads 2 .* or 6"),
    ]  # fmt: skip
    for name, optimizer, message in cases:
        model = built_model(optimizer)
        before = state_of(optimizer)
        with pytest.raises(ValueError, match=message):
            model.load_weights(tmp_path / f"{name}.weights.h5")
        for (key, old), (_, new) in zip(before, state_of(optimizer), strict=True):
            np.testing.assert_array_equal(old, new, err_msg=key)


def test_a_dead_scale_of_stock_keras_is_an_error(tmp_path):
    stock = built_model(stock_optimizer())
    stock.optimizer.dynamic_scale.assign(0.0)
    stock.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="loss scale is 0, outside"):
        built_model(new_optimizer()).load_weights(tmp_path / "model.weights.h5")


def test_what_was_loaded_before_build_is_saved_again(tmp_path):
    source = built_model(new_optimizer())
    train(source, 0, 7)
    source.save_weights(tmp_path / "first.weights.h5")
    between = built_model(new_optimizer(), build=False)
    between.load_weights(tmp_path / "first.weights.h5")
    between.save_weights(tmp_path / "second.weights.h5")
    model = built_model(new_optimizer())
    model.load_weights(tmp_path / "second.weights.h5")
    assert_same(model.optimizer, source.optimizer)


def test_the_inner_state_is_written_once(tmp_path):
    sizes = {}
    for name, optimizer in (("ours", new_optimizer()), ("stock", stock_optimizer())):
        keras.config.set_dtype_policy("mixed_float16")
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(512)])
        model.compile(optimizer, loss="mse")
        optimizer.build(model.trainable_variables)
        model.save_weights(tmp_path / f"{name}.weights.h5")
        sizes[name] = (tmp_path / f"{name}.weights.h5").stat().st_size
    # Weights, two moments, an average: four copies here, seven there.
    assert sizes["ours"] < 0.65 * sizes["stock"]


# Files from before the scale could climb back. Of seven steps, with gradients of 1, infinity (three
# times), 1, 2 and 3: "plain" collapsed at the fourth and froze; "group", of two microbatches each,
# skipped twice and stands in the middle of a group.
OLDER = pathlib.Path(__file__).parent / "data"


def older_model(accumulation, **values):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")], name="model")
    inner = keras.optimizers.SGD(0.5, momentum=0.5, gradient_accumulation_steps=accumulation)
    model.compile(tfamp.LossScaleOptimizer(inner, 4.0, min_scale=1.0, **values), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("way", ["model", "weights", "checkpoint"])
@pytest.mark.parametrize(("name", "accumulation"), [("plain", None), ("group", 2)])
def test_an_older_file_loads_and_starts_clean(way, name, accumulation):
    path = OLDER / f"before_recovery_{name}"
    if way == "model":
        model = keras.models.load_model(f"{path}.keras")
    else:
        model = older_model(accumulation)
        if way == "weights":
            model.load_weights(f"{path}.keras")
        else:
            tf.train.Checkpoint(optimizer=model.optimizer).read(str(path)).expect_partial()
    optimizer = model.optimizer
    attempted, skipped = (7, 6) if name == "plain" else (3, 2)
    assert (optimizer.steps_attempted, optimizer.skipped_total) == (attempted, skipped)
    assert optimizer.scale == 1.0 and optimizer.skipped_non_finite_loss == 0
    assert optimizer.collapsed_at is None
    optimizer.raise_if_collapsed()
    before = model.get_weights()[1]
    optimizer.apply([tf.constant([[1.0], [1.0]]), tf.constant([1.0])])
    assert optimizer.steps_applied == 2
    if name == "plain":  # With the momentum of the first update, whose gradient was 1 / 4.
        moved = model.get_weights()[1] - before
        np.testing.assert_allclose(moved, 0.5 * (-0.5 * 0.25) - 0.5 * 1)
    else:  # With the microbatch before it, whose gradient was 3.
        assert optimizer.grad_norm == pytest.approx((3 + 1) / 2 * 3**0.5)


# Files from before RecordedOptimizer, of five steps whose second and third were skipped ("scaled"),
# and of three microbatches in groups of two, by a class that was called UnscaledOptimizer.


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("way", ["model", "weights", "checkpoint"])
def test_a_file_from_before_the_recorded_optimizer(way, policy):
    for name, accumulation in (("scaled", None), ("unscaled", 2)):
        path = OLDER / f"before_recorded_{name}"
        keras.config.set_dtype_policy(policy)
        if way == "model":
            optimizer = keras.models.load_model(f"{path}.keras").optimizer
        else:
            model = older_model(accumulation, dynamic_growth_steps=3)
            if name == "unscaled":
                inner = keras.optimizers.SGD(0.5, momentum=0.5, gradient_accumulation_steps=2)
                model.compile(RecordedOptimizer(inner), loss="mse")
            optimizer = model.optimizer
            optimizer.build(model.trainable_variables)
            if way == "weights":
                model.load_weights(f"{path}.keras")
            else:
                status = tf.train.Checkpoint(optimizer=optimizer).read(str(path))
                status.assert_existing_objects_matched()
        assert type(optimizer) is (
            tfamp.LossScaleOptimizer if name == "scaled" else RecordedOptimizer
        )
        found = (optimizer.steps_attempted, optimizer.skipped_total, optimizer.scale)
        assert found == ((5, 2, 1.0) if name == "scaled" else (1, 0, 1.0))
        # Momentum, and of the unfinished group its first microbatch.
        assert optimizer.grad_norm == pytest.approx(2 * 3**0.5)
        state = {variable.path.split("/", 1)[-1]: variable for variable in optimizer.variables}
        assert int(state["microbatch"].numpy()) == (0 if name == "scaled" else 1)
        if name == "unscaled":
            assert state["accumulator_1"].numpy().tolist() == [2.0]
        else:
            assert optimizer.growth_counter == 2


def test_a_recorded_optimizer_is_loaded_as_it_was_under_mixed_float16(tmp_path):
    model = built_model(RecordedOptimizer(keras.optimizers.SGD(0.1, momentum=0.5), history=7))
    model.compile(model.optimizer, loss="mse", auto_scale_loss=False)
    train(model, 1, 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    # A file does not keep `auto_scale_loss`: Keras would wrap an optimizer that is no wrapper.
    assert again.dtype_policy.name == "mixed_float16"
    assert type(again.optimizer) is RecordedOptimizer
    assert again.optimizer.history_size == 7
    assert_same(again.optimizer, model.optimizer)
