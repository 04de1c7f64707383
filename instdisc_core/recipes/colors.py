"""Whether the colors of images say what they show, as those of fruit do."""

import dataclasses
import math

import numpy as np

from instdisc_core.recipes.glimpses import (
    FEWEST,
    cells,
    different,
    directions,
    gray,
    require_images,
)
from instdisc_core.recipes.recipe import Recipe

BY_CHANCE = 1.0
TELLING = 2.25  # times by chance; objects of any color have 1.2 to 1.9, photos of products 2.7 to 5
VARIED = 0.2  # share of the variance of color; photos have 0.4 to 0.6, and those of hands 0.05
KEPT = {"strength": 0.12, "grayscale": 0.0}  # of the augmentation, where colors tell
NEIGHBORS = 0.02  # share of the images
LEVELS = (-77, -38, -13, 13, 38, 77)  # of 255, between the bins of a difference of channels
PLACES, SLOPES = 4, 8  # of edges: cells in each direction, and orientations


def with_colors_kept(recipe: Recipe, images: np.ndarray) -> tuple[Recipe, list[str]]:
    """The recipe, with small changes of color where colors say what images show, and why."""
    agreement = color_agreement(images)
    if agreement < TELLING:
        return recipe, []
    settings = dict(recipe.augmentation_settings) | KEPT
    why = "Colors are changed little: " + (
        "too few images are different to tell whether colors matter, and of photos they often do."
        if math.isnan(agreement)
        else f"of a sample, images of like colors have like shapes {agreement:.1f} times as often "
        "as by chance."
    )
    return dataclasses.replace(recipe, augmentation_settings=tuple(settings.items())), [why]


def color_agreement(images: np.ndarray) -> float:
    """How many times as often as by chance images of like colors have like shapes too.

    Near 1 where an object may have any color: then a training that changes colors learns what
    matters. Greater where color and shape depend on the same thing, such as the kind of fruit; a
    training that changes colors learns to overlook what tells it. Compared are the nearest 2 % of
    the images by a histogram of their colors, without brightness, and by where the brightness has
    edges of which orientation. Of images that are nearly the same one is taken. Where all images
    have the same colors, what they differ by is the light, and does not count.

    Args:
        images: ``(n, height, width, channels)`` of pixels in ``[0, 255]``, height and width
            multiples of 16. Other than three channels have no color.

    Returns:
        A number from 0; 1 for images without color or of the same colors. NaN for fewer than 100
        different images, which do not say, unless they have no color or the same colors.

    Raises:
        ValueError: images of another shape.

    Example: ``times = recipes.color_agreement(images)``
    """
    images = require_images(images)
    if not len(images):
        return float("nan")
    images = images[different(images)]
    colors = color_features(images)
    if not colors.any() or color_variation(images) < VARIED:
        return BY_CHANCE
    if len(images) < FEWEST:
        return float("nan")
    by_color, by_shape = nearest(colors), nearest(shape_features(images))
    n, k = len(by_color), by_color[0].sum()
    return float((by_color & by_shape).sum(axis=1).mean() * (n - 1) / k**2)


def color_variation(images: np.ndarray) -> float:
    """Share of the variance of color that is between images, and not within them.

    Args:
        images: ``(n, height, width, channels)`` of pixels in ``[0, 255]``.

    Returns:
        A number in [0, 1]; 0 for images without color.

    Example: ``share = recipes.color_variation(images)``
    """
    pixels = _colors(images)
    total = pixels.var(axis=(0, 1)).sum()
    return float(pixels.mean(axis=1).var(axis=0).sum() / total) if total > 0 else 0.0


def color_features(images: np.ndarray) -> np.ndarray:
    """Rows ``(n, 49)``, what the histogram of an image's colors differs by from the mean.

    They are 0 where no image has color. Square roots are compared, so that a large area of one
    color does not outweigh all else.
    """
    bins = len(LEVELS) + 1
    red, yellow = np.moveaxis(np.digitize(_colors(images), LEVELS), -1, 0)
    counts = np.stack([np.bincount(row, minlength=bins**2) for row in red * bins + yellow])
    return _centered(np.sqrt(counts))


def shape_features(images: np.ndarray) -> np.ndarray:
    """Rows ``(n, 128)``, what the edges in each cell and orientation differ by from the mean."""
    down, right = np.gradient(gray(images), axis=(1, 2))
    turn = np.arctan2(down, right) % np.pi / np.pi  # of the slope, in half turns
    orientation = (turn * SLOPES).astype(int) % SLOPES
    length = np.hypot(down, right)
    parts = [cells(length * (orientation == slope), PLACES) for slope in range(SLOPES)]
    return _centered(np.sqrt(np.stack(parts, axis=-1)).reshape(len(images), -1))


def nearest(rows: np.ndarray) -> np.ndarray:
    """Booleans ``(n, n)``: which other rows are among the nearest of each, by cosine."""
    count = max(1, round(NEIGHBORS * len(rows)))
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    found = np.zeros(similarity.shape, bool)
    np.put_along_axis(found, np.argsort(-similarity, axis=1)[:, :count], True, axis=1)
    return found


def _colors(images: np.ndarray) -> np.ndarray:
    """Red less green, and yellow less blue, of each pixel: ``(n, pixels, 2)``."""
    pixels = np.asarray(images, "float32").reshape(len(images), -1, images.shape[-1])
    if pixels.shape[-1] != 3:
        return np.zeros((*pixels.shape[:2], 2), "float32")
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.stack([red - green, (red + green) / 2 - blue], axis=-1)


def _centered(rows: np.ndarray) -> np.ndarray:
    return directions(rows - rows.mean(axis=0))
