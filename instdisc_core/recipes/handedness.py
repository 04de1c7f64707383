"""Whether images differ from their mirror images, as letters and hands do."""

import numpy as np

from instdisc_core.recipes.glimpses import (
    CELLS,
    cells,
    different,
    directions,
    gray,
    require_divisible,
)
from instdisc_core.recipes.recipe import Recipe

HANDED = 0.75  # share of images told from their mirror images; photos of things have up to 0.65
FEWEST = 100  # different images; fewer do not say what the share is
FOLDS = 5
TINY = 1e-6  # where all images are symmetric, there is nothing to learn


def as_handed(recipe: Recipe, images: np.ndarray) -> tuple[Recipe, list[str]]:
    """The recipe, without mirroring where mirror images look like none of the images, and why."""
    share = told_from_mirror(images)
    if not share >= HANDED:
        return recipe, []
    why = f"No mirroring: of a sample, {share:.0%} were told from their mirror images."
    return recipe.with_augmentation(flip=False), [why]


def told_from_mirror(images: np.ndarray) -> float:
    """Share of images that a linear classifier tells from their mirror images.

    About a half where left and right could be exchanged, as in most collections of photos; near 1
    where no image looks like the mirror image of another. The classifier is a ridge regression,
    which judges each fifth of the images after training on the others. Of images that are nearly
    the same, as in bursts of photos, one is taken: it would tell about the others.

    Args:
        images: ``(n, height, width, channels)`` of pixels in ``[0, 255]``, height and width
            multiples of 16.

    Returns:
        A number in [0, 1]; NaN for fewer than 100 different images, which do not say.

    Raises:
        ValueError: images of another shape.

    Example: ``share = recipes.told_from_mirror(images)``
    """
    images = require_divisible(images)
    chosen = different(images) if len(images) >= FEWEST else []
    if len(chosen) < FEWEST:
        return float("nan")
    rows = odd_features(images[chosen])
    fold, told = np.arange(len(rows)) % FOLDS, np.empty(len(rows))
    for judged in range(FOLDS):
        others = rows[fold != judged]
        covariance = others.T @ others
        ridge = (np.trace(covariance) / len(covariance) + TINY) * np.eye(len(covariance))
        weights = np.linalg.solve(covariance + ridge, others.sum(axis=0))
        told[fold == judged] = (1 + np.sign(rows[fold == judged] @ weights)) / 2
    return float(told.mean())


def odd_features(images: np.ndarray) -> np.ndarray:
    """Rows ``(n, 74)`` that change their sign where an image is mirrored left to right.

    The brightness less that of the mirror image, in a grid of 16 x 16 cells; and the slant of the
    edges, up or down to the right, in one of 8 x 8, added to that of the mirror image, whose
    slants are opposite. The outer cells are left out, where a date or a mark may be. Both parts
    have about length 1, and less where an image is nearly symmetric.
    """
    brightness = gray(images)
    down, right = np.gradient(brightness, axis=(1, 2))
    bright, slant = cells(brightness, CELLS, edge=3), cells(down * right, CELLS // 2, edge=1)
    slant = np.sign(slant) * np.sqrt(np.abs(slant))  # few strong edges do not outweigh all others
    parts = bright - bright[:, :, ::-1], slant + slant[:, :, ::-1]
    halves = (part[:, :, : part.shape[2] // 2].reshape(len(part), -1) for part in parts)
    return np.concatenate([directions(rows) for rows in halves], axis=1)
