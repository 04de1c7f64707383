"""What small copies of images show at a glance: brightness in a grid, and which are the same."""

import numpy as np

from instdisc_core.validation import require

ALIKE = 0.9  # cosine of two images of which one is left out
CELLS = 16  # in each direction
NOTHING = 1.0  # levels of 255; what JPEG adds to a symmetric image is less


def require_divisible(images: np.ndarray) -> np.ndarray:
    """The images as an array, if they are ``(n, height, width, channels)`` and divide into cells.

    Raises:
        ValueError: images of another shape.
    """
    shape = np.shape(images)
    require(
        len(shape) == 4 and min(shape[1:]) > 0 and shape[1] % CELLS == shape[2] % CELLS == 0,
        f"images of shape {shape}",
        f"(n, height, width, channels), height and width multiples of {CELLS}",
    )
    return np.asarray(images)


def different(images: np.ndarray) -> list[int]:
    """Numbers of the images without those that are nearly the same as an earlier one.

    Compared is what the brightness of each differs by from the mean image, so that pictures of one
    kind, from one place, are different.
    """
    bright = cells(gray(images), CELLS).reshape(len(images), -1)
    units = directions(bright - bright.mean(axis=0))
    alike = units @ units.T >= ALIKE
    kept: list[int] = []
    for i in range(len(images)):
        if not alike[i, kept].any():
            kept.append(i)
    return kept


def gray(images: np.ndarray) -> np.ndarray:
    """The mean of the channels, float32."""
    return np.asarray(images, "float32").mean(axis=-1)


def cells(values: np.ndarray, count: int, edge: int = 0) -> np.ndarray:
    """Means of the cells of a grid, without so many at each edge."""
    n, height, width = values.shape
    shape = n, count, height // count, count, width // count
    return values.reshape(shape).mean(axis=(2, 4))[:, edge : count - edge, edge : count - edge]


def directions(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; where there is next to nothing they stay near 0."""
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + NOTHING)
