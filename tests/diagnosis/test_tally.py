"""What sums say: errors, floors, shares, histograms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfamp.diagnosis import tally
from tfamp.diagnosis.tally import Tally


def of(y, r, **more):
    y, r = np.asarray(y, float), np.asarray(r, float)
    sums = Tally(
        squared_error=np.sum((y - r) ** 2), product=np.sum(y * r), squares=np.sum(y**2),
        reference_squares=np.sum(r**2), entries=y.size, underflows=np.sum((y == 0) & (r != 0)),
        non_finite=np.sum(~np.isfinite(y)), subnormal=0,
    )  # fmt: skip
    return sums._replace(**more)


def test_a_point():
    point = tally.point("mixed_float16", 4, of([3, 0, 0, 0], [3, 4, 0, 0], subnormal=1), floor=0)
    assert (point.precision, point.log2_scale) == ("mixed_float16", 4)
    assert point.relative_error == pytest.approx(0.8)
    assert point.cosine == pytest.approx(0.6)
    assert (point.underflow_fraction, point.subnormal_fraction) == (0.25, 0.25)
    assert point.non_finite_fraction == 0


def test_what_is_not_finite_has_no_error():
    point = tally.point("float32", None, of([1, math.nan, math.inf], [1, 2, 3]), floor=0)
    assert point.relative_error is point.cosine is None
    assert point.non_finite_fraction == pytest.approx(2 / 3)


def test_two_gradients_of_zero_agree():
    point = tally.point("float32", None, of([0, 0], [0, 0]), floor=0)
    assert (point.relative_error, point.cosine) == (0, None)


def test_pooled_is_all_entries_together():
    some, others = of([1, 2], [1, 3]), of([4], [0])
    assert tally.pooled([some, others]) == of([1, 2, 4], [1, 3, 0])
    assert tally.pooled([]) is None


def floor(reference, **errors):
    found = {name: [of(y, reference) for y in ys] for name, ys in errors.items()}
    return tally.floor_of(np.linalg.norm(reference), tally.terms_size(found))


def test_a_gradient_that_is_zero_up_to_rounding_has_a_floor():
    """The bias of a convolution before BatchNormalization: terms of 0.1 that cancel."""
    reference = np.full(4, 1e-17)
    single, half = np.full(4, 6e-9), np.full(4, 5e-5)
    above = floor(reference, float32=[single], mixed_float16=[half])
    assert tally.relative_error(of(half, reference), above) < 0.01
    assert tally.relative_error(of(single, reference), above) < 1e-5


def test_float32_may_cancel_to_zero_by_luck():
    reference, half = np.full(4, 1e-17), np.full(4, 5e-5)
    above = floor(reference, float32=[np.zeros(4)], mixed_float16=[np.zeros(4), half])
    assert tally.relative_error(of(half, reference), above) < 0.01


@pytest.mark.parametrize("size", [1.0, 2.0**-40, 2.0**-160])
def test_a_gradient_that_vanishes_has_none(size):
    """Lost in float16 at every scale; the smallest of these in float32 too."""
    reference = np.full(4, size)
    single = reference.astype(np.float32).astype(float)
    assert floor(reference, float32=[single], mixed_float16=[np.zeros(4)]) == 0


def test_a_gradient_that_cancels_in_part_has_none():
    """To 2^-15 of its terms: float32 keeps nine bits, float16 none, and that is said."""
    reference = np.full(4, 2.0**-15)
    single, half = reference + 2.0**-24, reference + 2.0**-11
    assert floor(reference, float32=[single], mixed_float16=[half]) == 0


def test_a_histogram():
    counts = np.zeros(2048, np.int64)
    counts[[0, 1023 - 30, 1023 - 28]] = 5, 1, 4
    found = tally.histogram(counts)
    assert (found.first, found.counts, found.zeros) == (-30, (1, 0, 4), 5)
    counts[1:] = 0
    assert tally.histogram(counts).counts == ()


def test_sizes():
    assert tally.log2_size(4, 4 * 2.0**-20) == -10
    assert tally.log2_size(4, 0) is None
    assert tally.log2_size(0, 0) is None


def test_the_units_of_a_call():
    found = tally.of_call(np.array([1.0, 2, 3, 0, 10, 4, 0, 1]), -50, 5.0)
    assert found == Tally(2.0**-100, 2 * 2.0**-100, 3 * 2.0**-100, 5 * 2.0**-100, 10, 4, 0, 1)
