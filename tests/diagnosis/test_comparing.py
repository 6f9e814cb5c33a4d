"""Sums of hand-made passes against NumPy, entry by entry."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tests.marks import slow
from tfamp.diagnosis import comparing, tally
from tfamp.diagnosis.probe import LayerCall, Pass, WeightGradient

RANDOM = np.random.default_rng(0)
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
SMALLEST_NORMAL = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126}


def taken(gradient=None, weight=None, path="net/dense"):
    """A pass of one call and one weight."""
    calls, weights = [], []
    if gradient is not None:
        gradient = tf.convert_to_tensor(gradient)
        calls = [LayerCall(path, [tf.ones_like(gradient)], [gradient])]
    if weight is not None:
        weights = [WeightGradient(path, f"{path}/kernel", tf.constant(weight))]
    return Pass(tf.constant(0.0), calls, weights)


def compared(reference, other, log2_scale=0):
    """The tallies of a call's gradient and of a weight's, both with the same values."""
    key = comparing.key_of("net/dense", 0, 0)
    kept = comparing.read_reference(taken(reference, reference))
    call = kept["calls"][key]
    exponent = int(call["exponent"])
    factors = {
        key: comparing.factors_for(log2_scale, exponent),
        "weights": np.float64(2.0**-log2_scale),
    }
    found = comparing.read_compared(
        taken(other, other), kept["weights"], {key: call["blocks"]}, factors
    )
    return (
        tally.of_call(found["calls"][key].numpy(), exponent, float(call["squares"])),
        tally.of_weight(found["weights"][key].numpy(), other.dtype.name),
    )


def expected(reference, other, log2_scale=0):
    y, r = other.astype(np.float64) / 2.0**log2_scale, reference
    is_small = np.abs(other.astype(np.float64)) < SMALLEST_NORMAL[other.dtype.name]
    return tally.Tally(
        squared_error=np.sum((y - r) ** 2), product=np.sum(y * r), squares=np.sum(y**2),
        reference_squares=np.sum(r**2), entries=y.size, underflows=np.sum((y == 0) & (r != 0)),
        non_finite=np.sum(~np.isfinite(y)), subnormal=np.sum(is_small & (y != 0)),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 300, slow(5000), slow(40000), slow(70000)])
def test_sums_are_those_of_the_entries(dtype, size):
    """With every power of two from 2^-59 to 2^5, zeros, and zeros of the reference."""
    reference = RANDOM.normal(size=size) * 2.0 ** -RANDOM.integers(-5, 60, size)
    reference[::7] = 0
    scaled = (reference * 2.0**5).astype(DTYPES[dtype])
    scaled[::11] = 0
    for found in compared(reference, scaled, log2_scale=5):
        assert found == pytest.approx(expected(reference, scaled, 5), rel=3e-7)
        assert found[4:] == expected(reference, scaled, 5)[4:]


def test_subnormal_float16_numbers_are_counted_to_the_entry():
    scaled = (2.0 ** np.arange(-30.0, 1)).astype(np.float16)
    # 2^-24 to 2^-15; 2^-25 and below are zero.
    for found in compared(np.ones(31), scaled):
        assert (found.subnormal, found.underflows) == (10, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted(bad):
    scaled = np.array([1, bad, 2, bad], np.float16)
    for found in compared(np.ones(4), scaled):
        assert found.non_finite == 2 and not found.is_finite


@pytest.mark.parametrize("log2_size", [-120, -70, 60])
def test_a_gradient_of_any_size_keeps_its_error(log2_size):
    """Its square may be out of float32's range."""
    reference = RANDOM.normal(size=500) * 2.0**log2_size
    scaled = (reference * 2.0**-log2_size).astype(np.float16)
    call, weight = compared(reference, scaled, log2_scale=-log2_size)
    assert call.error / call.reference == pytest.approx(weight.error / weight.reference, rel=1e-6)
    assert 1e-4 < weight.error / weight.reference < 3e-4


def test_what_is_tiny_in_the_reference_is_still_not_zero():
    reference = np.array([1.0, 2.0**-200, 0.0, -(2.0**-300)])
    call, weight = compared(reference, np.array([1, 0, 0, 0], np.float16))
    assert call.underflows == weight.underflows == 2


def test_a_value_where_the_reference_is_zero_up_to_rounding():
    """Relative to the reference it is beyond float32."""
    call, _ = compared(np.full(3, 2.0**-80), np.full(3, 2.0**-10, np.float16))
    assert np.isfinite(call.error) and call.error > 2.0**-30


@pytest.mark.parametrize(
    ("values", "computes_in", "subnormals"),
    [
        # All are numbers of float16, so a float16 layer made them there.
        ([2.0**-24, 2.0**-15, 1.0, 0.0], "float16", 2),
        ([2.0**-24, 2.0**-15, 1.0, 0.0], "float32", 0),
        # One has more bits than float16 holds: a float16 layer made them in float32, as
        # BatchNormalization does.
        ([2.0**-24, 2.0**-15, 1 + 2.0**-11, 0.0], "float16", 0),
        ([2.0**-25, 2.0**-15, 1.0, 0.0], "float16", 0),
        ([65536.0, 2.0**-15, 1.0, 0.0], "float16", 0),
        ([np.inf, 2.0**-15, 1.0, 0.0], "float16", 1),
        ([1 + 2.0**-8, 2.0**-127, 0.0, 0.0], "bfloat16", 1),
    ],
)
def test_what_holds_a_weights_gradient(values, computes_in, subnormals):
    gradient = np.array(values, np.float32)
    kept = comparing.read_reference(taken(weight=np.ones(4)))
    found = comparing.read_compared(
        taken(weight=gradient), kept["weights"], {}, {"weights": np.float64(1)}
    )
    (sums,) = found["weights"].values()
    assert tally.of_weight(sums.numpy(), computes_in).subnormal == subnormals


def test_exponents_are_exact():
    gradient = np.array([0.0, 1.0, 1.999, -2.0, 2.0**-40, np.nextafter(1.0, 0), -0.0])
    kept = comparing.read_reference(taken(gradient, gradient))
    for counts in (
        next(iter(kept["calls"].values()))["exponents"],
        next(iter(kept["weight_exponents"].values())),
    ):
        found = tally.histogram(counts.numpy())
        by_exponent = {found.first + i: count for i, count in enumerate(found.counts) if count}
        assert by_exponent == {-40: 1, -1: 1, 0: 2, 1: 1}
        assert found.zeros == 2


def test_calls_are_matched_by_layer_and_number():
    def call(path, value):
        one = tf.constant([value], tf.float64)
        return LayerCall(path, [one], [one])

    first = [call("a", 1.0), call("b", 2.0), call("a", 3.0)]
    kept = comparing.read_reference(Pass(tf.constant(0.0), first, []))
    assert [comparing.path_in(key) for key in kept["calls"]] == ["a", "b", "a"]
    other = [call("b", 2.0), call("a", 1.0)]
    factors = {
        key: comparing.factors_for(0, int(c["exponent"])) for key, c in kept["calls"].items()
    }
    blocks = {key: c["blocks"] for key, c in kept["calls"].items()}
    found = comparing.read_compared(
        Pass(tf.constant(0.0), other, []), {}, blocks, {**factors, "weights": np.float64(1)}
    )
    assert set(found["calls"]) == {comparing.key_of("a", 0, 0), comparing.key_of("b", 0, 0)}
    assert all(sums[0] == 0 for sums in found["calls"].values())


def test_an_output_that_no_gradient_reaches_has_its_size_only():
    one = tf.constant([3.0, 4.0], tf.float64)
    kept = comparing.read_reference(Pass(tf.constant(0.0), [LayerCall("a", [one], [None])], []))
    (call,) = kept["calls"].values()
    assert call.keys() == {"outputs"}
    assert call["outputs"].numpy().tolist() == [2, 25, 0]


def test_in_a_trace_with_xla_and_without():
    reference = RANDOM.normal(size=(20, 30))
    scaled = reference.astype(np.float16)

    def both(gradient):
        kept = comparing.read_reference(taken(reference))
        (key,) = kept["calls"]
        call = kept["calls"][key]
        factors = {key: tf.constant([0.5, 0.5]), "weights": np.float64(1)}
        read = comparing.read_compared(taken(gradient), {}, {key: call["blocks"]}, factors)
        return read["calls"][key], call["exponents"]

    eager = both(scaled)
    for jit_compile in (False, True):
        traced = tf.function(both, jit_compile=jit_compile, autograph=False)(scaled)
        assert traced[0].numpy() == pytest.approx(eager[0].numpy(), rel=1e-6)
        assert (traced[1].numpy() == eager[1].numpy()).all()
