"""The order of seeds, and their words."""

import pytest

from tfamp.reporting import seeds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0], "0"),
        ([0, 1, 2], "0, 1, 2"),
        ([0, 1, 2, 3], "0 to 3"),
        (list(range(2, 12)), "2 to 11"),
        ([0, 1, 2, 9], "0, 1, 2, 9"),
        ([3, 2, 1, 0], "3, 2, 1, 0"),
        ([None], "not set"),
        ([0, 1, 2, 3, None], "0, 1, 2, 3, not set"),
    ],
)
def test_many_seeds_in_a_row_are_a_range(values, words):
    assert seeds.in_words(values) == words


def test_a_run_without_a_seed_comes_last():
    assert sorted([None, 10, 1, 0, 9], key=seeds.by_seed) == [0, 1, 9, 10, None]
