"""What an optimizer writes to a store, and what it takes from which store."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tfamp.precision.recorded_optimizer import RecordedOptimizer

INF = float("inf")


def made(kind=tfamp.LossScaleOptimizer, is_built=True, steps=(), accumulation=None, **values):
    """An optimizer with momentum over one weight of two entries, after steps."""
    inner = keras.optimizers.SGD(0.5, momentum=0.9, gradient_accumulation_steps=accumulation)
    if kind is tfamp.LossScaleOptimizer:
        values = {"initial_scale": 16.0, "hysteresis": 2} | values
    optimizer = kind(inner, **values)
    if is_built:
        weight = keras.Variable([1.0, 1.0], name="weight")
        optimizer.build([weight])
        for gradient in steps:
            optimizer.scale_loss(tf.constant(1.0))
            optimizer.apply([tf.constant([gradient, 0.0])], [weight])
    return optimizer


def written(optimizer):
    store = {}
    optimizer.save_own_variables(store)
    return {key: np.asarray(value) for key, value in store.items()}


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)
        assert one[key].dtype == other[key].dtype


STEPS = (1.0, INF, INF, INF, 1.0)


def test_everything_is_written_under_its_name():
    store = written(made(steps=STEPS))
    counters = {key: value.item() for key, value in store.items() if key.startswith("tfamp_")}
    assert counters == {
        "tfamp_steps_attempted": 5,
        "tfamp_skipped_total": 3,
        "tfamp_skipped_in_a_row": 0,
        "tfamp_hysteresis_left": 0,
        "tfamp_collapsed_at": 0,
        "tfamp_culprit": -1,
        "tfamp_culprit_has_nan": 0,
        "tfamp_microbatch": 0,
        "tfamp_last_loss": 1.0,
        "tfamp_grad_norm": 0.25,
        "tfamp_skipped_non_finite_loss": 0,
        "tfamp_overflows_in_a_row": 0,
        "tfamp_last_clean_scale": 4.0,
        "tfamp_recovery_scale": 0.0,
        "tfamp_noted_non_finite_loss": 0,
        "tfamp_is_scaling": 1,
    }
    # Keras's order, with a count and a rate that only the inner one, behind them, has.
    own = [store[str(i)].item() for i in range(4)]
    assert own == [0, 0.0, 1, 4.0]
    inner = [store[key].tolist() for key in sorted(store) if key.isdigit() and int(key) > 3]
    assert inner[:2] == [2, 0.5] and len(inner) == 3


@pytest.mark.parametrize("is_built", [False, True])
def test_all_comes_back_before_and_after_build(is_built):
    store = written(made(steps=STEPS))
    other = made(is_built=is_built, steps=(2.0,) if is_built else ())
    other.load_own_variables(store)
    if not is_built:
        same(written(other), store)  # Kept, and handed on.
        other.build([keras.Variable([1.0, 1.0], name="weight")])
    same(written(other), store)


def test_an_unfinished_group_comes_back():
    store = written(made(accumulation=3, steps=(1.0, 2.0)))
    assert store["tfamp_microbatch"] == 2
    assert store["tfamp_accumulator_0"].tolist() == [3.0, 0.0]
    other = made(accumulation=3)
    other.load_own_variables(store)
    same(written(other), store)


@pytest.mark.parametrize(("accumulation", "group_size"), [(None, 1), (2, 2)])
@pytest.mark.parametrize("is_built", [False, True])
def test_a_group_that_does_not_fit_is_refused(accumulation, group_size, is_built):
    store = written(made(accumulation=3, steps=(1.0, 2.0)))
    other = made(accumulation=accumulation, is_built=is_built)
    with pytest.raises(ValueError, match=f"after microbatch 2 .* is {group_size} here.* above 2"):
        other.load_own_variables(store)


def test_a_group_that_was_complete_fits_any_size():
    store = written(made(accumulation=3, steps=(1.0, 2.0, 1.0)))
    other = made()
    other.load_own_variables(store)
    assert other.steps_attempted == 1
    # Sums that the file does not hold begin at zero.
    bigger = made(accumulation=2, steps=(1.0,))
    bigger.load_own_variables(written(made(steps=(1.0,))))
    assert written(bigger)["tfamp_accumulator_0"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize(
    ("scale", "fits"), [(2.0, True), (1.99, False), (32.0, True), (INF, False)]
)
def test_a_scale_outside_the_bounds_is_refused_and_nothing_is_changed(scale, fits, is_built):
    store = written(made(steps=(1.0,))) | {"3": np.float32(scale)}
    other = made(is_built=is_built, min_scale=2.0, max_scale=32.0)
    before = written(other)
    if fits:
        other.load_own_variables(store)
        assert not is_built or other.scale == scale
    else:
        with pytest.raises(ValueError, match=r"\[min_scale=2, max_scale=32\]"):
            other.load_own_variables(store)
        same(written(other), before)


def test_a_static_scale_stays_whatever_the_file_holds():
    other = made(dynamic=False, initial_scale=1000.0)
    other.load_own_variables(written(made(steps=STEPS)))
    assert (other.scale, other.skipped_total) == (1000.0, 3)


def test_a_run_without_a_scale_gives_its_state_and_leaves_the_scale():
    store = written(made(RecordedOptimizer, steps=(1.0, 1.0)))
    assert store["tfamp_is_scaling"] == 0
    other = made()
    other.load_own_variables(store)
    assert (other.scale, other.growth_counter, other.steps_applied) == (16.0, 0, 2)
    assert int(other.iterations) == 2
    back = made(RecordedOptimizer)
    back.load_own_variables(written(made(steps=STEPS)))
    assert (back.scale, back.steps_attempted) == (1.0, 5)


def kerass(steps, scale=16.0):
    """The store of Keras's own wrapper, and of the optimizer in it."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5, momentum=0.9), scale)
    weight = keras.Variable([1.0, 1.0], name="weight")
    optimizer.build([weight])
    for gradient in steps:
        optimizer.apply([tf.constant([gradient, 0.0])], [weight])
    stores = {}, {}
    optimizer.save_own_variables(stores[0])
    optimizer.inner_optimizer.save_own_variables(stores[1])
    return [{key: np.asarray(value) for key, value in store.items()} for store in stores]


def test_kerass_own_gives_scale_counter_and_inner_state_and_the_rest_begins():
    wrapped, bare = kerass((1.0, INF, 1.0, 1.0))
    other = made(steps=(INF, INF, INF))
    other.load_own_variables(wrapped)
    assert (other.scale, other.growth_counter, int(other.iterations)) == (8.0, 2, 3)
    store = written(other)
    found = {key: store[f"tfamp_{key}"].item() for key in (
        "steps_attempted", "skipped_total", "hysteresis_left", "culprit", "last_clean_scale"
    )}  # fmt: skip
    assert found == {"steps_attempted": 0, "skipped_total": 0, "hysteresis_left": 2, "culprit": -1,
                     "last_clean_scale": 8.0}  # fmt: skip
    # A bare optimizer's state has no scale: what there is stays.
    another = made(initial_scale=64.0)
    another.load_own_variables(bare)
    assert (another.scale, int(another.iterations)) == (64.0, 3)
    np.testing.assert_array_equal(written(another)["6"], bare["2"])


def test_one_that_was_never_built_holds_nothing():
    other = made(steps=(1.0,))
    before = written(other)
    other.load_own_variables({})
    unbuilt = {}
    keras.optimizers.SGD(0.25).save_own_variables(unbuilt)
    other.load_own_variables(unbuilt)
    same(written(other), before)


def test_other_weights_and_other_optimizers_are_refused_and_nothing_is_changed():
    other = made(steps=(1.0,))
    before = written(other)
    store = written(made(steps=(1.0, 1.0)))
    with pytest.raises(ValueError, match=r"has 8 variables\. This one reads 3 .* or 7 "):
        other.load_own_variables(store | {"7": np.zeros(2)})
    with pytest.raises(ValueError, match=r"shape \(3,\) where '.*' has \(2,\)"):
        other.load_own_variables(store | {"6": np.zeros(3, "float32")})
    same(written(other), before)


def test_a_file_of_steps_is_not_taken_for_one_without_any():
    plain = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.5))
    plain.build([keras.Variable([1.0, 1.0])])
    plain.apply([tf.constant([1.0, 0.0])])
    # All that it holds are single numbers, of which the first is 0.
    with pytest.raises(ValueError, match=r"has 6 variables\. This one reads 3 .* or 7 "):
        made().load_own_variables(written(plain))


def test_a_collapse_was_an_event_of_another_process():
    store = written(made(steps=STEPS)) | {"tfamp_collapsed_at": np.int64(3)}
    other = made()
    other.load_own_variables(store)
    assert other.collapsed_at is None and written(other)["tfamp_collapsed_at"] == 0
