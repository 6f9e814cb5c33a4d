"""Scenes to find garments in: four of Fashion-MNIST's, each somewhere in its quarter of a picture.

Made of the embedded set, so that a detector can be trained without a download. A scene is a
function of (seed, number): every scale sees the same ones, and none comes twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfamp.data import embedded

SIDE = 56  # Pixels of a scene.
QUARTER = SIDE // 2
GARMENT = embedded.IMAGE_SHAPE[0] // 2  # Pixels of a garment in it: half of the set's.
STRIDE = 2  # Pixels of a cell in which a detector looks.
CELLS = SIDE // STRIDE
NUM_GARMENTS = 4
NUM_CLASSES = embedded.NUM_CLASSES
# How far from a garment's centre, in cells, a cell belongs to it (FCOS's centre sampling, Tian et
# al. 2019, arXiv 1904.01355), and a detection finds it.
RADIUS = 1


class Scenes(NamedTuple):
    """Some scenes.

    Attributes:
        images: float32 [n, SIDE, SIDE, 1].
        classes: int [n, NUM_GARMENTS].
        centres: int [n, NUM_GARMENTS, 2]: row and column of the cell.
    """

    images: np.ndarray
    classes: np.ndarray
    centres: np.ndarray


class Garments(NamedTuple):
    """What scenes are made of: float32 [n, GARMENT, GARMENT] in [0, 1], and int [n]."""

    images: np.ndarray
    classes: np.ndarray


def garments() -> tuple[Garments, Garments]:
    """Those for training and those for validation."""
    arrays = embedded.read()

    def halved(images: np.ndarray, labels: np.ndarray) -> Garments:
        blocks = images[..., 0].reshape(-1, GARMENT, 2, GARMENT, 2)
        return Garments((blocks.mean((2, 4)) / 255).astype("float32"), labels.astype(int))

    return (
        halved(arrays.train_images, arrays.train_labels),
        halved(arrays.test_images, arrays.test_labels),
    )


def draw(source: Garments, count: int, seed: tuple[int, ...]) -> Scenes:
    """Draws scenes.

    Args:
        source: What to draw from.
        count: How many.
        seed: Whole numbers; the same give the same scenes.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(source.classes), (count, NUM_GARMENTS))
    inside = generator.integers(0, QUARTER - GARMENT + 1, (count, NUM_GARMENTS, 2))
    quarters = QUARTER * np.stack(np.divmod(np.arange(NUM_GARMENTS), 2), axis=-1)
    corners = quarters + inside
    images = np.zeros((count, SIDE, SIDE, 1), "float32")
    for scene in range(count):
        for place, (row, column) in enumerate(corners[scene]):
            garment = source.images[chosen[scene, place]]
            images[scene, row : row + GARMENT, column : column + GARMENT, 0] = garment
    return Scenes(images, source.classes[chosen], (corners + GARMENT // 2) // STRIDE)


def targets(scenes: Scenes) -> np.ndarray:
    """What a detector should say: 1 where a cell belongs to a garment of a class, else 0.

    Returns:
        float32 [n, CELLS, CELLS, NUM_CLASSES].
    """
    count = len(scenes.classes)
    found = np.zeros((count, CELLS, CELLS, NUM_CLASSES), "float32")
    scene = np.arange(count)[:, np.newaxis]
    around = range(-RADIUS, RADIUS + 1)
    for down in around:
        for right in around:
            # A garment's centre is further from the border than this.
            rows, columns = scenes.centres[..., 0] + down, scenes.centres[..., 1] + right
            found[scene, rows, columns, scenes.classes] = 1
    return found


def share_found(scores: np.ndarray, scenes: Scenes) -> float:
    """How many garments are found.

    Of each scene the four highest peaks count: a peak is as high as all that surround it, of its
    class. One finds a garment of its class no more than `RADIUS` cells away that no higher one has
    found.

    Args:
        scores: float [n, CELLS, CELLS, NUM_CLASSES]; NaN finds nothing.
        scenes: The scenes that they are of.

    Returns:
        The share, in [0, 1].
    """
    heights = _peaks(
        np.nan_to_num(scores.astype(float), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    )
    flat = heights.reshape(len(heights), -1)
    best = np.argsort(-flat, axis=1, kind="stable")[:, :NUM_GARMENTS]
    hits = 0
    for scene, places in enumerate(best):
        left = list(zip(scenes.classes[scene], scenes.centres[scene], strict=True))
        for place in places[np.isfinite(flat[scene, places])]:
            cell, kind = divmod(int(place), NUM_CLASSES)
            where = np.array(divmod(cell, CELLS))
            for index, (garment, centre) in enumerate(left):
                if garment == kind and np.abs(centre - where).max() <= RADIUS:
                    del left[index]
                    hits += 1
                    break
    return hits / scenes.classes.size


def _peaks(scores: np.ndarray) -> np.ndarray:
    """The scores of the peaks; -inf elsewhere."""
    padded = np.pad(scores, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.where(scores == windows.max((-2, -1)), scores, -np.inf)
