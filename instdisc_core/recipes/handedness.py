"""Whether images differ from their mirror images, as letters and hands do."""

import dataclasses

import numpy as np

from instdisc_core.recipes.recipe import Recipe

HANDED = 0.75  # share of images told from their mirror images; photos of things have up to 0.65
FEWEST = 100  # images; fewer do not say what the share is
FOLDS = 5
RUNS = 20  # of images that follow each other, each of them in one fold
NOTHING = 0.01  # levels of 255


def as_handed(recipe: Recipe, images: np.ndarray) -> tuple[Recipe, list[str]]:
    """The recipe, without mirroring where mirror images look like none of the images, and why."""
    if len(images) < FEWEST or (share := told_from_mirror(images)) < HANDED:
        return recipe, []
    settings = dict(recipe.augmentation_settings) | {"flip": False}
    why = f"No mirroring: of {len(images)} images, {share:.0%} were told from their mirror images."
    return dataclasses.replace(recipe, augmentation_settings=tuple(settings.items())), [why]


def told_from_mirror(images: np.ndarray) -> float:
    """Share of the images that a linear classifier tells from their mirror images.

    About a half where left and right could be exchanged, as in most collections of photos; near 1
    where no image looks like the mirror image of another. The classifier is a ridge regression on
    what changes its sign when an image is mirrored. It judges each fifth of the images after
    training on the others. Images that follow each other are mostly in the same fifth, so that
    photos of one scene do not tell about themselves.

    Args:
        images: ``(n, height, width, channels)`` of at least 5 images in their order, height
            and width multiples of 16.

    Example:
    ```python
    from instdisc_core.recipes.handedness import told_from_mirror

    share = told_from_mirror(images)
    ```
    """
    rows = odd_features(images)
    folds = np.arange(len(rows)) * RUNS // len(rows) % FOLDS
    told = np.empty(len(rows))
    for fold in range(FOLDS):
        others = rows[folds != fold]
        covariance = others.T @ others
        ridge = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        weights = np.linalg.lstsq(covariance + ridge, others.sum(axis=0), rcond=None)[0]
        told[folds == fold] = (1 + np.sign(rows[folds == fold] @ weights)) / 2
    return float(told.mean())


def odd_features(images: np.ndarray) -> np.ndarray:
    """Rows that change their sign where an image is mirrored left to right.

    The brightness less that of the mirror image, in 16 x 16 cells; and the slant of the edges, up
    or down to the right, in 8 x 8 cells, added to that of the mirror image, whose slants are
    opposite. Both have length 1, but for symmetric images, of which they are 0.
    """
    gray = np.asarray(images, "float32").mean(axis=-1)
    down, right = np.gradient(gray, axis=(1, 2))
    bright, slant = _cells(gray, 16), _cells(down * right, 8)
    slant = np.sign(slant) * np.sqrt(np.abs(slant))  # few strong edges do not outweigh all others
    parts = bright - bright[:, :, ::-1], slant + slant[:, :, ::-1]
    return np.concatenate([_directions(part.reshape(len(part), -1)) for part in parts], axis=1)


def _cells(values: np.ndarray, count: int) -> np.ndarray:
    """Means ``(n, count, count)`` of the cells of a grid."""
    n, height, width = values.shape
    shape = n, count, height // count, count, width // count
    return values.reshape(shape).mean(axis=(2, 4))


def _directions(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; where there is next to nothing they stay near 0."""
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + NOTHING)
