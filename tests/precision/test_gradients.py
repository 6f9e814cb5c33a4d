"""The global norm, the finite check and the counts, where float32 sums would lie."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfamp.precision import gradients


def both(fn, *args):
    """Runs eagerly and under XLA; the two must agree."""
    eager = [x.numpy() for x in fn(*args)]
    compiled = [x.numpy() for x in tf.function(fn, jit_compile=True)(*args)]
    np.testing.assert_allclose(eager[0], compiled[0], rtol=1e-6)
    assert eager[1] == compiled[1]
    return eager


def test_norm_over_several_tensors_and_none():
    norm, is_finite = both(gradients.global_norm, [tf.constant([3.0]), None, tf.constant([[4.0]])])
    assert norm == 5.0 and is_finite


@pytest.mark.parametrize("size", [1e-30, 1e-10, 1.0, 1e20, 1e30])
def test_norm_where_squares_leave_float32(size):
    norm, is_finite = both(
        gradients.global_norm, [tf.constant([3 * size]), tf.constant([4 * size])]
    )
    np.testing.assert_allclose(norm, 5 * size, rtol=1e-6)
    assert is_finite


def test_finite_gradients_whose_squares_overflow_are_not_called_non_finite():
    # The naive check, isfinite(sum(g*g)), would skip this step.
    assert tf.math.is_inf(tf.constant(3e30) ** 2)
    assert both(gradients.global_norm, [tf.constant([3e30])])[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_one_bad_value_among_many_is_seen(bad, place):
    values = [np.ones((5, 7), "float32"), np.ones((3,), "float32")]
    values[place].flat[-1] = bad
    norm, is_finite = both(gradients.global_norm, [tf.constant(v) for v in values])
    assert not is_finite
    assert not np.isfinite(norm)


def test_all_zero_and_no_gradients():
    norm, is_finite = both(gradients.global_norm, [tf.zeros([4])])
    assert norm == 0.0 and is_finite
    norm, is_finite = gradients.global_norm([None])
    assert norm.numpy() == 0.0 and is_finite.numpy()


def test_a_gradient_whose_size_only_the_step_knows():
    signature = [tf.TensorSpec([None], tf.float32)]
    norm = tf.function(
        lambda rows: gradients.global_norm([rows, tf.constant([4.0])]), input_signature=signature
    )
    assert [x.numpy() for x in norm(tf.constant([3.0]))] == [5.0, True]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_gradients_are_summed_in_float32(dtype):
    # 4096 values of 64: the sum of squares, 2^24, is beyond float16.
    norm, is_finite = both(gradients.global_norm, [tf.fill([4096], tf.cast(64.0, dtype))])
    assert norm == 4096.0 and is_finite


def test_repeated_rows_of_indexed_slices_are_summed_before_the_norm():
    slices = tf.IndexedSlices(tf.constant([[3.0], [1.0]]), tf.constant([2, 2]), tf.constant([5, 1]))
    assert gradients.global_norm([gradients.densified(slices)])[0].numpy() == 4.0
    big = tf.IndexedSlices(tf.constant([[3e38], [3e38]]), tf.constant([2, 2]), tf.constant([5, 1]))
    assert not gradients.global_norm([gradients.densified(big)])[1].numpy()


def fractions(*values):
    """Shares of zeros and of non-finite entries, as the optimizer asks for them."""
    return gradients.zero_and_non_finite_fractions(values, gradients.global_norm(values)[1])


def test_planted_zeros_and_non_finite_entries_are_counted():
    first = np.ones((5, 7), "float32")
    first[0, :4] = [0.0, -0.0, math.nan, math.inf]
    second = np.array([0.0, -math.inf, 1e-30, -1.0, 3e38], "float32")
    zeros, non_finite = both(fractions, tf.constant(first), None, tf.constant(second))
    assert (zeros, non_finite) == (np.float32(3 / 40), np.float32(3 / 40))
    zeros, non_finite = both(fractions, tf.constant(first[1:]), tf.constant(second[2:]))
    assert (zeros, non_finite) == (0.0, 0.0)
    # Finite values whose squares overflow, and all zero: the norm's second pass.
    assert both(fractions, tf.constant([3e30, 0.0])) == [0.5, 0.0]
    assert both(fractions, tf.zeros([4])) == [1.0, 0.0]


def test_small_and_large_tensors_count_entry_by_entry():
    # 65,537 is one more than what is copied into the joined vector.
    large = np.ones(65537, "float32")
    large[:3] = 0.0
    large[3] = math.nan
    zeros, non_finite = both(fractions, tf.constant(large), tf.zeros([2, 2]), tf.ones([3]))
    assert (zeros, non_finite) == (np.float32(7 / 65544), np.float32(1 / 65544))


def test_counts_are_exact_beyond_what_float32_can_count():
    # 2^24 + 3 zeros among 2^24 + 4 entries. In float32 the count would be 2^24 + 4: all of them.
    zeros, _ = fractions(tf.zeros([2**24]), tf.constant([0.0, 0.0, 0.0, 1.0]))
    assert zeros.numpy() == np.float32((2**24 + 3) / (2**24 + 4)) < 1.0


def test_the_smallest_float16_is_no_zero_and_half_of_it_is():
    values = tf.constant([2.0**-24, -(2.0**-24), 2.0**-25, 65504.0, 65536.0])
    assert both(fractions, tf.cast(values, tf.float16)) == [np.float32(0.2), np.float32(0.2)]


def test_only_the_rows_that_indexed_slices_have_are_counted():
    # Rows 2 and 4 of 5. Row 2 comes twice, and its parts cancel in one entry.
    slices = tf.IndexedSlices(
        tf.constant([[3.0, 1.0], [-3.0, 1.0], [0.0, math.inf]]),
        tf.constant([2, 2, 4]),
        tf.constant([5, 2]),
    )
    assert both(lambda: fractions(gradients.densified(slices))) == [0.5, 0.25]
    assert both(lambda: fractions(gradients.densified(slices), tf.zeros([4]))) == [0.75, 0.125]


def test_nothing_is_no_share_of_zeros():
    assert np.isnan(fractions(None)[0].numpy()) and np.isnan(fractions(tf.zeros([0]))[1].numpy())


@pytest.mark.parametrize(("bad", "has_nan"), [(math.inf, False), (math.nan, True)])
def test_first_non_finite_counts_none_entries(bad, has_nan):
    grads = [tf.constant([1.0]), None, tf.constant([bad, 1.0]), tf.constant([math.nan])]
    index, found_nan = both(gradients.first_non_finite, grads)
    assert (index, found_nan) == (2, has_nan)
    assert gradients.first_non_finite(grads[:2])[0].numpy() == -1


def test_the_figures_of_a_step_are_of_the_unscaled_norm_and_of_all_entries():
    scaled = [tf.constant([6.0, 0.0]), None, tf.constant([8.0, 0.0])]
    figures, is_finite = gradients.gradient_figures(scaled, tf.constant(2.0), True)
    assert {name: value.numpy() for name, value in figures.items()} == {
        "grad_norm": 5.0, "grad_zero_fraction": 0.5, "grad_non_finite_fraction": 0.0,
    }  # fmt: skip
    assert is_finite.numpy()
    bad = [tf.constant([math.inf, 0.0, 1.0, 1.0])]
    figures, is_finite = gradients.gradient_figures(bad, tf.constant(2.0), True)
    assert (figures["grad_non_finite_fraction"].numpy(), is_finite.numpy()) == (0.25, False)
    assert set(gradients.gradient_figures(bad, tf.constant(2.0), False)[0]) == {"grad_norm"}
