"""Images that are in memory as a source."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.data.labels import numbered
from instdisc_core.data.manifest import Manifest
from instdisc_core.data.source import ImageSource
from instdisc_core.validation import require


class ImageArray(ImageSource):
    """Images that are in memory.

    Args:
        images: uint8 ``(n, height, width, 3)``. They are not copied: do not change them.
        labels: ``(n,)``, integers or strings, or None.
        names: n strings; None is ``"image 0"``, ``"image 1"``, ...
        class_names: what integer labels mean.

    Raises:
        ValueError: images of another dtype or shape, or none.

    Example: ``batches = ImageArray(images, labels).batches(10, seed=0)``
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        images = np.asarray(images)
        require(
            images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3,
            f"images of dtype {images.dtype} and shape {images.shape}",
            "uint8 in [0, 255], of shape (n, height, width, 3)",
            "Convert them, for example with (255 * images).round().astype('uint8').",
        )
        require(len(images) > 0, "no images", "at least one")
        n, height, width, _ = images.shape
        all_names = tuple(f"image {i}" for i in range(n)) if names is None else tuple(names)
        require(
            len(all_names) == n, f"{len(all_names)} names for {n} images", "one name for each image"
        )
        numbers, found = numbered(labels, class_names)
        manifest = Manifest.of_pixels(all_names, images)
        size = height, width
        super().__init__(manifest, size, numbers, found, pixels=images)
