"""Changed copies of an image that no augmentation here makes, and the parts of an image."""

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
    from PIL import Image

    height, width = image.shape[:2]
    degrees = rng.uniform(5, 12) * rng.choice([-1, 1])
    top, left = height // 2, width // 2
    around = np.pad(image, ((top, top), (left, left), (0, 0)), "symmetric")
    rotated = Image.fromarray(around).rotate(degrees, Image.Resampling.BILINEAR)
    return np.asarray(rotated)[top : top + height, left : left + width]


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


def halves(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right half of an image, each resized to its size.

    Example:
    ```python
    from instdisc_core.evaluation.alterations import halves

    left, right = halves(images[0])
    ```
    """
    height, width = image.shape[:2]
    middle = max(1, width // 2)
    left, right = image[:, :middle], image[:, width - middle :]
    return resized(left, (height, width)), resized(right, (height, width))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels of another ``(height, width)``, bicubic."""
    from PIL import Image

    pixels = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(pixels.resize(size[::-1], Image.Resampling.BICUBIC))


# What is searched for, and where: functions of an image and what draws, from which two come.
PAIRS = {
    "altered copy": lambda image, rng: (altered(image, rng), image),
    "other half": lambda image, rng: halves(image),
}
