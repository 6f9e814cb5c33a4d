"""Formats against NumPy, ml_dtypes, TensorFlow and exact fractions; 16 bits exhaustively."""

import dataclasses
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tests.messages import naming
from tfamp.precision import formats
from tfamp.precision.formats import FORMATS
from tfamp.run.errors import InputError

DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
    "float8_e4m3": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
SMALL = ("float16", "bfloat16", "float8_e4m3", "float8_e5m2")


@np.errstate(invalid="ignore")  # Signalling NaNs.
def all_values(name):
    """What every bit pattern of a format of 8 or 16 bits stands for, as float64."""
    dtype = np.dtype(DTYPES[name])
    patterns = np.arange(2 ** (8 * dtype.itemsize), dtype=f"uint{8 * dtype.itemsize}")
    return patterns.view(dtype).astype(np.float64)


def finite_values(name):
    """Every finite number of a format, upwards, once (no -0)."""
    values = all_values(name)
    return np.unique(values[np.isfinite(values)])


@np.errstate(over="ignore", invalid="ignore")
def cast(values, name):
    """What the dtype itself makes of float32 values, as float64."""
    return np.asarray(values, np.float32).astype(DTYPES[name]).astype(np.float64)


# Limits.


def test_the_formats_are_those_of_the_lab():
    assert list(FORMATS) == [
        "float16", "bfloat16", "tf32", "float32", "float64", "float8_e4m3", "float8_e5m2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bits", "largest", "smallest_normal", "smallest_subnormal", "epsilon", "digits"),
    [
        # IEEE 754 binary16, 32 and 64; bfloat16; NVIDIA's TF32; OCP OFP8, table 1.
        ("float16", (16, 5, 10), 65504, 2.0**-14, 2.0**-24, 2.0**-10, 3.31),
        ("bfloat16", (16, 8, 7), (2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133, 2.0**-7, 2.41),
        ("tf32", (19, 8, 10), (2 - 2.0**-10) * 2.0**127, 2.0**-126, 2.0**-136, 2.0**-10, 3.31),
        ("float32", (32, 8, 23), (2 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-149, 2.0**-23, 7.22),
        ("float64", (64, 11, 52), math.nextafter(math.inf, 0), 2.0**-1022, 2.0**-1074, 2.0**-52,
         15.95),
        ("float8_e4m3", (8, 4, 3), 448, 2.0**-6, 2.0**-9, 2.0**-3, 1.20),
        ("float8_e5m2", (8, 5, 2), 57344, 2.0**-14, 2.0**-16, 2.0**-2, 0.90),
    ],
)  # fmt: skip
def test_limits(name, bits, largest, smallest_normal, smallest_subnormal, epsilon, digits):
    one = formats.named(name)
    assert (one.bits, one.exponent_bits, one.mantissa_bits) == bits
    assert one.largest == largest
    assert one.smallest_normal == smallest_normal
    assert one.smallest_subnormal == smallest_subnormal
    assert one.epsilon == epsilon
    assert round(one.decimal_digits, 2) == digits
    assert one.has_infinity == (name != "float8_e4m3")


@pytest.mark.parametrize("name", SMALL)
def test_limits_are_those_of_all_bit_patterns(name):
    one, values = formats.named(name), finite_values(name)
    positive = values[values > 0]
    assert one.bits == 8 * np.dtype(DTYPES[name]).itemsize
    assert one.largest == positive[-1]
    assert one.smallest_subnormal == positive[0]
    assert one.epsilon == positive[positive > 1][0] - 1
    # The first number as far from its neighbour below as from 0 to the smallest is normal.
    assert len(positive[positive < one.smallest_normal]) == 2**one.mantissa_bits - 1
    assert one.has_infinity == np.isinf(all_values(name)).any()


# Distances.


@pytest.mark.parametrize("name", SMALL)
def test_an_ulp_is_the_distance_of_neighbours_at_every_number(name):
    one, values = formats.named(name), finite_values(name)
    positive = values[values >= 0]
    assert [one.ulp(x) for x in positive[:-1]] == list(np.diff(positive))
    assert [one.ulp(-x) for x in positive[:-1]] == list(np.diff(positive))


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("x", [0.0, 1e-310, 1e-42, 0.1, 1.0, 3.0, 65504.0, 1e30])
def test_an_ulp_of_a_wide_format_is_numpys_spacing(name, x):
    x = float(DTYPES[name](x))
    assert formats.named(name).ulp(x) == float(np.spacing(DTYPES[name](x)))


def test_an_ulp_at_a_number_that_the_format_does_not_hold():
    float16 = formats.named("float16")
    assert float16.ulp(2049.0) == 2.0
    assert float16.ulp(1e-8) == 2.0**-24
    assert math.isnan(float16.ulp(65505.0))
    assert math.isnan(float16.ulp(math.inf))
    assert math.isnan(float16.ulp(math.nan))


# What numbers become.


@pytest.mark.parametrize("name", SMALL)
def test_every_bit_pattern_stays_what_it_is(name):
    values = all_values(name)
    rounded = formats.named(name).rounded(values)
    np.testing.assert_array_equal(rounded, values)
    np.testing.assert_array_equal(np.signbit(rounded), np.signbit(values))


def around(values):
    """The float32 numbers that rounding could get wrong: neighbours, middles, next to either."""
    values = values.astype(np.float32)
    middles = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)
    points = np.concatenate([values, middles])
    return np.concatenate(
        [
            points,
            np.nextafter(points, np.float32(np.inf)),
            np.nextafter(points, np.float32(-np.inf)),
        ]
    )


@pytest.mark.parametrize("name", SMALL)
def test_rounding_is_the_dtypes_at_and_around_every_number_and_every_middle(name):
    one = formats.named(name)
    beyond = one.largest + np.array([0.4, 0.5, 0.6, 1.0, 1.5, 2.0]) * one.ulp(one.largest)
    others = np.concatenate([beyond, -beyond, [np.inf, -np.inf, np.nan]])
    with np.errstate(over="ignore"):  # bfloat16 ends where float32 does.
        points = np.concatenate([around(finite_values(name)), others.astype(np.float32)])
    found, expected = one.rounded(points), cast(points, name)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found)[~np.isnan(found)],
                                  np.signbit(expected)[~np.isnan(expected)])  # fmt: skip


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3", "float8_e5m2", "float32"])
def test_rounding_is_tensorflows(name):
    # Powers of two from beyond the range to below it, each with a mantissa of every length. What
    # float32 itself holds as a subnormal is left out: TensorFlow's kernels take it for 0.
    generator = np.random.default_rng(0)
    exponents = np.repeat(np.arange(-126, 128), 64)
    values = np.ldexp(generator.uniform(1, 2, exponents.size), exponents).astype(np.float32)
    dtype = tf.dtypes.as_dtype(DTYPES[name])
    # Through one operation, as on a device.
    found = tf.cast(tf.cast(tf.constant(values), dtype), tf.float32).numpy().astype(np.float64)
    np.testing.assert_array_equal(formats.named(name).rounded(values), found)


def test_float16_is_rounded_from_float64_as_numpy_does():
    generator = np.random.default_rng(1)
    values = np.ldexp(generator.uniform(1, 2, 20000), generator.integers(-30, 18, 20000))
    ties = 1 + 2.0**-11 + np.array([-(2.0**-52), 0.0, 2.0**-52, 2.0**-40])
    values = np.concatenate([values, ties, ties + 2.0**-10])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(formats.named("float16").rounded(values), expected)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3", "float8_e5m2", "tf32"])
def test_a_float64_is_rounded_once(name):
    # Just above the middle of 1 and its neighbour: in float32 it is the middle.
    one = formats.named(name)
    above = 1 + one.epsilon / 2 + 2.0**-40
    assert float(one.rounded(above)) == 1 + one.epsilon
    assert float(one.rounded(np.float32(above))) == 1.0


def nearest_even(x, one):
    """The same by exact fractions: the nearest multiple of the ulp, ties to an even multiple."""
    quantum = Fraction(one.ulp(min(abs(x), one.largest)))
    return float(math.copysign(float(round(Fraction(abs(x)) / quantum) * quantum), x))


@pytest.mark.parametrize("name", FORMATS)
def test_rounding_is_that_of_exact_fractions(name):
    one, generator = formats.named(name), np.random.default_rng(2)
    lowest = max(one.min_exponent - one.mantissa_bits - 2, -1074)
    exponents = generator.integers(lowest, min(math.frexp(one.largest)[1] - 1, 1022), 2000)
    values = np.ldexp(generator.uniform(-2, 2, 2000), exponents)
    values = values[np.abs(values) < one.largest / 2]
    np.testing.assert_array_equal(one.rounded(values), [nearest_even(x, one) for x in values])


def tf32_of_bits(values):
    """float32 to 10 bits of mantissa by whole numbers: half an ulp less one, and the last bit."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    last = (bits >> np.uint64(13)) & np.uint64(1)
    kept = ((bits + np.uint64(0xFFF) + last) & np.uint64(0xFFFFE000)).astype(np.uint32)
    return kept.view(np.float32).astype(np.float64)


def test_tf32_is_float32_whose_last_13_bits_are_rounded_away():
    generator = np.random.default_rng(3)
    patterns = generator.integers(0, 2**32, 200_000, dtype=np.uint32)
    # Every tie at one exponent, subnormals, and both sides of overflow.
    ties = np.arange(0x3F800000, 0x40000000, 0x1000, dtype=np.uint32)
    subnormal = np.arange(0, 0x00810000, 0x800, dtype=np.uint32)
    end = np.arange(0x7F7FD000, 0x7F800000, 1, dtype=np.uint32)
    values = np.concatenate([patterns, ties, subnormal, end]).view(np.float32)
    values = values[np.isfinite(values)]
    found = formats.named("tf32").rounded(values)
    np.testing.assert_array_equal(found, tf32_of_bits(values))
    assert np.isinf(found).any()


def test_shapes_are_kept():
    float16 = formats.named("float16")
    assert float16.rounded(70000.0).shape == ()
    assert float16.rounded([[1.0, 1e-8], [2049.0, -70000.0]]).tolist() == [
        [1.0, 0.0], [2048.0, -math.inf],
    ]  # fmt: skip
    assert float16.rounded([]).shape == (0,)


# In words.


@pytest.mark.parametrize(
    ("name", "x", "value", "fate"),
    [
        ("float16", 1.0, 1.0, "exact"),
        ("float16", 0.0, 0.0, "exact"),
        ("float16", 65504.0, 65504.0, "exact"),
        ("float16", 2049.0, 2048.0, "rounded"),
        ("float16", 2051.0, 2052.0, "rounded"),
        ("float16", 65519.0, 65504.0, "rounded"),
        ("float16", 65520.0, math.inf, "infinite"),
        ("float16", -70000.0, -math.inf, "infinite"),
        # Rounds up to the smallest normal number.
        ("float16", 2.0**-14 - 2.0**-26, 2.0**-14, "rounded"),
        ("float16", 2.0**-15, 2.0**-15, "subnormal"),
        ("float16", 1e-6, 17 * 2.0**-24, "subnormal"),
        ("float16", 2.0**-25 + 2.0**-50, 2.0**-24, "subnormal"),
        ("float16", 2.0**-25, 0.0, "zero"),
        ("float16", 1e-8, 0.0, "zero"),
        ("bfloat16", 70000.0, 70144.0, "rounded"),
        ("bfloat16", 256.0 + 1, 256.0, "rounded"),
        ("bfloat16", 1e-45, 0.0, "zero"),
        ("float32", 1e-45, 2.0**-149, "subnormal"),
        ("float32", 16777217.0, 16777216.0, "rounded"),
        ("float64", 0.1, 0.1, "exact"),
        ("float64", 5e-324, 5e-324, "subnormal"),
        ("tf32", 2049.0, 2048.0, "rounded"),
        ("tf32", 70000.0, 70016.0, "rounded"),
        ("float8_e4m3", 464.0, 448.0, "rounded"),
        ("float8_e4m3", 465.0, math.nan, "nan"),
        ("float8_e4m3", math.inf, math.nan, "nan"),
        ("float8_e5m2", 61440.0, math.inf, "infinite"),
        ("float16", math.inf, math.inf, "infinite"),
        ("float16", math.nan, math.nan, "nan"),
    ],
)
def test_what_a_number_becomes(name, x, value, fate):
    became = formats.named(name).becomes(x)
    assert became.fate == fate
    np.testing.assert_equal(became.value, value)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (1.0, 0.0), (0.0, 0.0), (2.0**-15, 0.0), (2049.0, 1 / 2049), (-2051.0, 1 / 2051),
        (1e-8, 1.0), (70000.0, math.inf), (math.inf, math.nan), (math.nan, math.nan),
    ],
)  # fmt: skip
def test_relative_error(x, error):
    np.testing.assert_equal(formats.named("float16").becomes(x).relative_error, error)


def test_a_normal_number_is_off_by_half_an_epsilon_at_most():
    generator = np.random.default_rng(4)
    for name in ("float16", "bfloat16", "tf32", "float8_e4m3", "float8_e5m2"):
        one = formats.named(name)
        for x in generator.uniform(one.smallest_normal, one.largest, 200):
            assert one.becomes(x).relative_error <= one.epsilon / 2


def test_an_unknown_format_gets_the_list():
    with pytest.raises(InputError, match=naming("'float61'", "float16", "bfloat16", "tf32")):
        formats.named("float61")


def test_a_format_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        formats.named("float16").largest = 1.0
