"""Which gradient was not finite when it was unscaled, whatever was made of it until `apply`."""

import math

import pytest
import tensorflow as tf

from tfamp.precision.unscaling import UnscaledOverflow

INF, NAN = math.inf, math.nan


def gradients(*values):
    return [None if value is None else tf.constant([value, 1.0]) for value in values]


def values(gradients):
    """The first entries; all that is not finite is so in every entry."""
    found = []
    for gradient in gradients:
        if gradient is not None:
            first, second = gradient.numpy().tolist()
            assert math.isfinite(first) or str(first) == str(second)
        found.append(None if gradient is None else str(first))
    return found


@pytest.mark.parametrize(
    ("came", "mended", "put_back"),
    [
        ((1.0, 2.0), (3.0, 4.0), ["3.0", "4.0"]),
        ((INF, 2.0), (3.0, 4.0), ["inf", "4.0"]),
        ((1.0, NAN), (3.0, 4.0), ["3.0", "nan"]),
        ((None, NAN, INF), (None, 4.0, 5.0), [None, "nan", "5.0"]),
        # Left out since, and the last of a longer list: the first that there is.
        ((INF, 2.0), (None, 4.0), [None, "inf"]),
        ((1.0, 2.0, NAN), (3.0, 4.0), ["nan", "4.0"]),
    ],
)
def test_what_was_not_finite_is_so_again(came, mended, put_back):
    overflow = UnscaledOverflow()
    overflow.note(gradients(*came), is_first=True)
    assert values(overflow.put_back(gradients(*mended))) == put_back
    # Once.
    assert values(overflow.put_back(gradients(3.0, 4.0))) == ["3.0", "4.0"]


@pytest.mark.parametrize(
    ("first", "second", "put_back"),
    [
        ((INF, 1.0), (1.0, NAN), ["inf", "4.0"]),
        ((1.0, NAN), (INF, 1.0), ["3.0", "nan"]),
        ((1.0, 1.0), (1.0, NAN), ["3.0", "nan"]),
        ((1.0, 1.0), (1.0, 1.0), ["3.0", "4.0"]),
    ],
)
def test_the_first_of_two_notes_stays(first, second, put_back):
    overflow = UnscaledOverflow()
    overflow.note(gradients(*first), is_first=True)
    overflow.note(gradients(*second), is_first=False)
    assert values(overflow.put_back(gradients(3.0, 4.0))) == put_back


def test_a_first_note_forgets_what_no_apply_took():
    overflow = UnscaledOverflow()
    overflow.note(gradients(INF, 1.0), is_first=True)
    overflow.note(gradients(1.0, 1.0), is_first=True)
    assert values(overflow.put_back(gradients(3.0, 4.0))) == ["3.0", "4.0"]


def test_rows_and_16_bits_come_back_in_float32():
    overflow = UnscaledOverflow()
    overflow.note(gradients(NAN), is_first=True)
    rows = tf.IndexedSlices(tf.ones([1, 2], tf.float16), tf.constant([3]), tf.constant([5, 2]))
    (back,) = overflow.put_back([rows])
    assert back.indices.numpy().tolist() == [3] and back.values.dtype == tf.float32
    assert values([back.values[0]]) == ["nan"]
