"""Whether the colors of images say what they show, as those of fruit do."""

import math

import numpy as np

from instdisc_core.recipes.glimpses import cells, different, directions, gray, require_divisible
from instdisc_core.recipes.recipe import Recipe

BY_CHANCE = 1.0
MIN_AGREEMENT = 2.1  # times by chance; objects of any color have up to 2.0, TrashNet 2.3 to 3.2
MIN_VARIATION = 0.25  # photos of things have 0.33 to 0.58, those of hands 0.15
FEWEST = 200  # different images; the agreement of fewer is too random
NEIGHBORS, FEWEST_NEIGHBORS = 0.02, 5  # share of the images, and at least so many
SMALL_CHANGES = {"strength": 0.12, "grayscale": 0.0}
HISTOGRAM_EDGES = (-77, -38, -13, 13, 38, 77)  # of differences of channels, of 255
EDGE_CELLS, ORIENTATIONS = 4, 8


def with_colors_kept(recipe: Recipe, images: np.ndarray) -> tuple[Recipe, list[str]]:
    """The recipe, with small changes of color where colors say what images show, and why."""
    agreement = color_agreement(images)
    if agreement < MIN_AGREEMENT:
        return recipe, []
    why = "Small changes of color: " + (
        "too few images are different to tell whether colors matter."
        if math.isnan(agreement)
        else f"of a sample, images of like colors have like shapes {agreement:.1f} times as often "
        f"as by chance, and {MIN_AGREEMENT} is the limit."
    )
    return recipe.with_augmentation(**SMALL_CHANGES), [why]


def color_agreement(images: np.ndarray) -> float:
    """How many times as often as by chance images of like colors have like shapes too.

    Near 1 where an object may have any color: then a training that changes colors learns what
    matters. Greater where color and shape depend on the same thing, such as the kind of fruit; a
    training that changes colors then loses what the colors say. Compared are the nearest 2 % of the
    images, and at least 5, by a histogram of their colors without brightness, and by position and
    orientation of their edges. Near-duplicates are removed first. Where images differ little in
    color, they differ in the light, which does not count. Photos from several cameras or shops
    agree as well: what tells them apart has colors and shapes of its own.

    Args:
        images: ``(n, height, width, channels)`` of pixels in ``[0, 255]``, height and width
            multiples of 16. A fourth channel is left out; one and two have no color.

    Returns:
        A number from 0; 1 for images without color, or with less than 0.25 of ``color_variation``.
        NaN for fewer than 200 different images otherwise, which do not say.

    Raises:
        ValueError: images of another shape.

    Example: ``times = recipes.color_agreement(images)``
    """
    images = require_divisible(images)
    if not len(images):
        return float("nan")
    images = images[different(images)]
    colors = color_features(images)
    if not colors.any() or color_variation(images) < MIN_VARIATION:
        return BY_CHANCE
    if len(images) < FEWEST:
        return float("nan")
    return lift(nearest(colors), nearest(shape_features(images)))


def color_variation(images: np.ndarray) -> float:
    """Share of the variance of color that the mean colors of the images have.

    What all images have at the same place, such as a frame or the mark of a shop, does not count.

    Args:
        images: as those of ``color_agreement``.

    Returns:
        A number in [0, 1]; 0 for images without color.

    Raises:
        ValueError: images of another shape.

    Example: ``share = recipes.color_variation(images)``
    """
    pixels = _colors(require_divisible(images)).astype("float64")
    if not pixels.size:
        return 0.0
    pixels -= pixels.mean(axis=0)
    total = (pixels**2).mean(axis=(0, 1)).sum()
    return float((pixels.mean(axis=1) ** 2).mean(axis=0).sum() / total) if total > 0 else 0.0


def color_features(images: np.ndarray) -> np.ndarray:
    """Rows ``(n, 49)``, what the histogram of an image's colors differs by from the mean.

    They are 0 where no image has color. Square roots are compared, so that a large area of one
    color does not outweigh all else.
    """
    bins = len(HISTOGRAM_EDGES) + 1
    red, yellow = np.moveaxis(np.digitize(_colors(images), HISTOGRAM_EDGES), -1, 0)
    counts = np.stack([np.bincount(row, minlength=bins**2) for row in red * bins + yellow])
    return _centered(np.sqrt(counts))


def shape_features(images: np.ndarray) -> np.ndarray:
    """Rows ``(n, 128)``, what the edges in each cell and orientation differ by from the mean."""
    down, right = np.gradient(gray(images), axis=(1, 2))
    turn = np.arctan2(down, right) % np.pi / np.pi  # of the slope, in half turns
    orientation = (turn * ORIENTATIONS).astype(int) % ORIENTATIONS
    length = np.hypot(down, right)
    parts = [cells(length * (orientation == one), EDGE_CELLS) for one in range(ORIENTATIONS)]
    return _centered(np.sqrt(np.stack(parts, axis=-1)).reshape(len(images), -1))


def nearest(rows: np.ndarray) -> np.ndarray:
    """Booleans ``(n, n)``: which other rows are among the nearest of each, by cosine."""
    count = max(FEWEST_NEIGHBORS, round(NEIGHBORS * len(rows)))
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    found = np.zeros(similarity.shape, bool)
    first = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    np.put_along_axis(found, first, True, axis=1)
    return found


def lift(first: np.ndarray, second: np.ndarray) -> float:
    """How many times as often as by chance neighbors are both; of booleans as ``nearest`` has."""
    both = (first & second).sum(axis=1).mean()
    by_chance = first.sum(axis=1).mean() * second.sum(axis=1).mean() / (len(first) - 1)
    return float(both / by_chance)


def _colors(images: np.ndarray) -> np.ndarray:
    """Red less green, and yellow less blue, of each pixel: ``(n, pixels, 2)``."""
    pixels = np.asarray(images, "float32").reshape(len(images), -1, images.shape[-1])
    if pixels.shape[-1] < 3:
        return np.zeros((*pixels.shape[:2], 2), "float32")
    red, green, blue = np.moveaxis(pixels[..., :3], -1, 0)
    return np.stack([red - green, (red + green) / 2 - blue], axis=-1)


def _centered(rows: np.ndarray) -> np.ndarray:
    return directions(rows - rows.mean(axis=0))
