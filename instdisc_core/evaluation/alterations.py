"""Images that are changed in ways that no augmentation here uses, and the two halves of an image."""

from collections.abc import Callable

import numpy as np

Alteration = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def altered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy of an image that has gone through all alterations of this module.

    It is turned, shifted, made small and large again, darker or brighter, stored as a JPEG of low
    quality, and a patch of one color is laid over it. None of these is a crop or a color jitter of
    the trainings here.

    Args:
        image: pixels ``(height, width, 3)``, uint8.
        rng: what draws the amounts.

    Returns:
        Pixels of the same shape, uint8.

    Example:
    ```python
    from instdisc_core.evaluation.alterations import altered

    copy = altered(images[0], np.random.default_rng(0))
    ```
    """
    for alteration in (turned, shifted, shrunk, relit, compressed, covered):
        image = alteration(image, rng)
    return image
