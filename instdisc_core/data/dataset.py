"""A data set that can be indexed as a source of images."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.data.decoding import decode, thumbnail
from instdisc_core.data.labels import Labels, is_inferred, numbered
from instdisc_core.data.manifest import Manifest
from instdisc_core.data.source import ImageSource, fits
from instdisc_core.validation import require, require_size


class ImageDataset(ImageSource):
    """A data set that can be indexed: PyTorch's, Hugging Face's, Grain's, or a list.

    An element is an image, a tuple that begins with one, or a dict with one. An image is what
    ``decode`` takes, or a PyTorch tensor ``(channels, height, width)``. A torch data set must
    return the image itself, without a random augmentation: that belongs to the model.

    Args:
        dataset: with ``len`` and integer indices. Its own order is that of the instances.
        size: see ``ImageFolder``.
        image: name of the image in a dict; None looks for ``"image"`` and ``"img"``.
        labels: ``(n,)``; or ``"inferred"``, which takes those of Hugging Face's column ``label``
            and of torchvision's ``targets``; or None for no labels.
        cache: see ``ImageFolder``. Without a cache only the first image is read at the start. The
            manifest then holds no digests, and cannot tell apart two data sets of equal length.
        workers: see ``ImageFolder``. Give 1 for a data set that threads cannot share.

    Raises:
        ValueError: a data set that cannot be indexed, is empty, or holds no images.

    Example: ``photos = ImageDataset([{"image": image} for image in images], size=32)``
    """

    def __init__(
        self,
        dataset: Any,
        size: int | tuple[int, int],
        image: str | None = None,
        labels: ArrayLike | Literal["inferred"] | None = "inferred",
        cache: bool | Literal["auto"] = "auto",
        workers: int | None = None,
    ) -> None:
        require(
            hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"),
            f"a {type(dataset).__name__}",
            "a data set with len() and integer indices",
            "For a stream give fit (image, index) pairs, numbered before any shuffling, such as "
            "stream.enumerate().map(lambda i, image: (image, i)).batch(128) in tf.data.",
        )
        require(len(dataset) > 0, "an empty data set", "at least one image")
        self.dataset = dataset
        self._image = image
        n, shape = len(dataset), require_size(size)
        names = tuple(f"image {i}" for i in range(n))
        unread = Manifest(names, (0,) * n, (0,) * n, ("",) * n)
        numbers, class_names = _labels_of(dataset) if is_inferred(labels) else numbered(labels)
        super().__init__(unread, shape, numbers, class_names, workers)
        self.image(0)  # an error that all images have is raised now
        if fits(n, shape) if cache == "auto" else cache:
            pixels = self.images()
            self._keep(pixels)
            self.manifest = Manifest.of_pixels(names, pixels)

    def thumbnail(self, index: int, side: int = 160) -> np.ndarray:
        """See ``ImageSource``."""
        return self._read(index, lambda image: thumbnail(image, side))

    def _decode(self, index: int) -> np.ndarray:
        return self._read(index, lambda image: decode(image, self.size))

    def _read(self, index: int, make: Callable[[Any], np.ndarray]) -> np.ndarray:
        """What ``make`` returns for the image of an element."""
        try:
            return make(pixels_of(self.dataset[index], self._image))
        except ValueError as error:
            raise ValueError(
                f"Received: element {index} of the data set, which is not an image ({error}). "
                "Expected an image, a tuple that begins with one, or a dict with one."
            ) from error


def pixels_of(element: Any, key: str | None = None) -> Any:
    """The image of a data set's element, as ``decode`` takes it."""
    if isinstance(element, dict):
        names = [key] if key else ["image", "img"]
        found = [name for name in names if name in element]
        if not found:
            raise ValueError(f"a dict with {sorted(element)} and without {' or '.join(names)}")
        element = element[found[0]]
    image = element[0] if isinstance(element, (tuple, list)) else element
    if type(image).__module__.split(".")[0] == "torch":
        image = np.moveaxis(np.asarray(image), 0, -1) if image.ndim == 3 else np.asarray(image)
    return image


def _labels_of(dataset: Any) -> Labels:
    """Labels and class names, if the data set has them without decoding any image."""
    columns = getattr(dataset, "features", None)
    if isinstance(columns, dict) and "label" in columns:  # Hugging Face
        labels = np.asarray(dataset["label"][:])
        if np.all(labels == -1):  # what Hugging Face writes where there are none
            return Labels(None, None)
        return numbered(labels, getattr(columns["label"], "names", None))
    if hasattr(dataset, "targets"):  # torchvision
        classes = getattr(dataset, "classes", None)
        return Labels(np.asarray(dataset.targets), None if classes is None else list(classes))
    return Labels(None, None)
