"""Changed copies of an image, which no augmentation of the trainings here makes."""

import io

import numpy as np


def altered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy of an image that has gone through one alteration of this module.

    It is turned a little, or made small and large again, or darker or brighter, or covered in part,
    or stored as a JPEG of low quality. None of these is a crop or a color jitter of the trainings
    here.

    Args:
        image: pixels ``(height, width, 3)``, uint8.
        rng: what draws the alteration and its amount.

    Returns:
        Pixels of the same shape, uint8.

    Example:
    ```python
    from instdisc_core.evaluation.alterations import altered

    copy = altered(images[0], np.random.default_rng(0))
    ```
    """
    alterations = (turned, shrunk, relit, covered, compressed)
    return alterations[rng.integers(len(alterations))](image, rng)


def turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by 5 to 12 degrees to either side; its mirror image fills the corners."""
    height, width = image.shape[:2]
    angle = np.radians(rng.uniform(5, 12)) * rng.choice([-1, 1])
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = np.array([width - 1, height - 1]) / 2
    return _mapped(image, matrix, center - matrix @ center)


def shrunk(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resized to half of its sides and back."""
    height, width = image.shape[:2]
    small = resized(image, (max(1, height // 2), max(1, width // 2)))
    return resized(small, (height, width))


def relit(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels in ``[0, 1]`` to the power of 1.7 to 2.5, or of its reciprocal."""
    gamma = rng.uniform(1.7, 2.5) ** rng.choice([-1, 1])
    return np.round(255 * (image / 255) ** gamma).astype("uint8")


def covered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With a patch of one color, 30 % of each side, anywhere."""
    height, width = (round(0.3 * side) for side in image.shape[:2])
    top = rng.integers(0, image.shape[0] - height + 1)
    left = rng.integers(0, image.shape[1] - width + 1)
    image = image.copy()
    image[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return image


def compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As a JPEG of quality 5 to 15 shows it."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(rng.integers(5, 16)))
    return np.asarray(Image.open(file).convert("RGB"))


def warped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy of an image after a random affine map around its center.

    Each entry of its matrix differs from the identity's by up to a quarter, and it shifts by up to
    0.15 of the sides. The image's mirror image fills what was outside.

    Args:
        image: pixels ``(height, width, 3)``, uint8.
        rng: what draws the map.

    Returns:
        Pixels of the same shape, uint8.

    Example:
    ```python
    from instdisc_core.evaluation.alterations import warped

    copy = warped(images[0], np.random.default_rng(0))
    ```
    """
    height, width = image.shape[:2]
    matrix = np.eye(2) + rng.uniform(-0.25, 0.25, (2, 2))
    center = np.array([width - 1, height - 1]) / 2
    shift = rng.uniform(-0.15, 0.15, 2) * (width, height)
    return _mapped(image, matrix, center - matrix @ center + shift)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels of another ``(height, width)``, bicubic."""
    from PIL import Image

    pixels = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(pixels.resize(size[::-1], Image.Resampling.BICUBIC))


def _mapped(image: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The pixels at ``matrix @ (x, y) + offset`` for every ``(x, y)``, bilinear."""
    from PIL import Image

    height, width = image.shape[:2]
    top, left = height // 2, width // 2
    around = np.pad(image, ((top, top), (left, left), (0, 0)), "symmetric")
    # Pillow takes the center of a pixel to be half a pixel from its corner.
    x, y = offset + (left, top) + 0.5 - matrix @ (0.5, 0.5)
    (a, b), (c, d) = matrix.tolist()
    found = Image.fromarray(around).transform(
        (width, height),
        Image.Transform.AFFINE,
        (a, b, float(x), c, d, float(y)),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(found)


# By what an image is searched for: a changed copy of it, from the image and what draws.
TASKS = {"altered copy": altered, "warped copy": warped}
