"""Scenes: where the garments are, what a detector should say, and how many it found."""

import numpy as np
import pytest

from experiments.loss_scaling import scenes
from experiments.loss_scaling.scenes import CELLS, GARMENT, NUM_CLASSES, QUARTER, STRIDE


@pytest.fixture(scope="module")
def source():
    return scenes.garments()[0]


def perfect(drawn):
    """Scores that are highest at each garment's centre."""
    scores = np.full((len(drawn.classes), CELLS, CELLS, NUM_CLASSES), -5.0)
    for scene, (kinds, centres) in enumerate(zip(drawn.classes, drawn.centres, strict=True)):
        for kind, (row, column) in zip(kinds, centres, strict=True):
            scores[scene, row, column, kind] = 1.0
    return scores


def test_each_garment_is_whole_in_its_quarter_and_its_centre_is_told(source):
    drawn = scenes.draw(source, 50, (3,))
    for image, kinds, centres in zip(*drawn, strict=True):
        rest = image[..., 0].copy()
        for place, (kind, centre) in enumerate(zip(kinds, centres, strict=True)):
            top, left = (QUARTER * n for n in divmod(place, 2))
            quarter = rest[top : top + QUARTER, left : left + QUARTER]
            found = [
                (row, column)
                for row in range(QUARTER - GARMENT + 1)
                for column in range(QUARTER - GARMENT + 1)
                if (top + row + 7) // STRIDE == centre[0]
                and (left + column + 7) // STRIDE == centre[1]
                and quarter[row : row + GARMENT, column : column + GARMENT].sum()
                == pytest.approx(quarter.sum())
            ]
            assert found
            same = (source.images[source.classes == kind].sum((1, 2)) - quarter.sum()) ** 2
            assert same.min() < 1e-6


def test_scenes_are_a_function_of_their_seed(source):
    one, same, other = (scenes.draw(source, 5, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one.images, other.images)


def test_targets_are_nine_cells_a_garment(source):
    drawn = scenes.draw(source, 20, (0,))
    told = scenes.targets(drawn)
    assert told.sum() == 20 * 4 * 9
    kind, (row, column) = drawn.classes[7, 2], drawn.centres[7, 2]
    assert np.all(told[7, row - 1 : row + 2, column - 1 : column + 2, kind] == 1)


def test_what_is_right_is_found_and_what_is_a_class_or_two_cells_off_is_not(source):
    drawn = scenes.draw(source, 8, (5,))
    scores = perfect(drawn)
    assert scenes.share_found(scores, drawn) == 1
    assert scenes.share_found(np.roll(scores, 1, axis=1), drawn) == 1
    assert scenes.share_found(np.roll(scores, 2, axis=2), drawn) == 0
    wrong = np.roll(scores, 1, axis=3)
    # Unless the class next to a garment's is that of another one: those are in other quarters.
    assert scenes.share_found(wrong, drawn) == 0


def test_a_blurred_peak_counts_once(source):
    drawn = scenes.draw(source, 8, (5,))
    scores = perfect(drawn)
    kind, (row, column) = drawn.classes[0, 0], drawn.centres[0, 0]
    scores[0, row - 1 : row + 2, column - 1 : column + 2, kind] = 1.5
    scores[0, row, column, kind] = 2.0
    assert scenes.share_found(scores, drawn) == 1
    # Two peaks at one garment: the second takes the place of another's.
    scores[0, row, column, kind] = 1.0
    scores[0, row - 1 : row + 2, column, kind] = -1.0
    assert scenes.share_found(scores, drawn) == 1 - 3 / 32


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_nothing_is_found_by_what_is_not_finite(source, value):
    drawn = scenes.draw(source, 3, (5,))
    assert scenes.share_found(np.full_like(perfect(drawn), value), drawn) == 0
    scores = perfect(drawn)
    scores[1:] = value
    assert scenes.share_found(scores, drawn) == pytest.approx(1 / 3)
