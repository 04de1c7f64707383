"""An ImageSource from a folder, an array, a data set or a stream."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.data.array import ImageArray
from instdisc_core.data.dataset import ImageDataset, pixels_of
from instdisc_core.data.decoding import decode
from instdisc_core.data.folder import ImageFolder
from instdisc_core.data.labels import is_inferred
from instdisc_core.data.source import ImageSource
from instdisc_core.validation import require, require_size


def image_source(
    data: Any,
    size: int | tuple[int, int] | None = None,
    labels: ArrayLike | Literal["inferred"] | None = "inferred",
    **kwargs: Any,
) -> ImageSource:
    """An ImageSource from a folder, an array, a data set or a stream.

    Args:
        data: a folder's path; an array of images; a ``tf.data.Dataset`` of single images, which is
            read into memory in its order; a data set that can be indexed; or an ImageSource, which
            is returned as it is.
        size: see ``ImageFolder``; may be None for images in memory. An ImageSource must have this
            size.
        labels: ``(n,)``, integers or strings, but not for a folder. ``"inferred"`` takes the labels
            of the data set, or the subfolders of a folder. None is no labels.
        **kwargs: other arguments of ImageFolder, ImageArray or ImageDataset.

    Raises:
        ValueError: data of another kind, or no size; or an ImageSource of another size, or one with
            labels or other arguments, which it would ignore.

    Example: ``source = image_source("photos", size=64, follow_links=True)``
    """
    if isinstance(data, ImageSource):
        _require_unchanged(data, size, labels, kwargs)
        return data
    if isinstance(data, np.ndarray) and (size is None or data.shape[1:3] == require_size(size)):
        return ImageArray(data, None if is_inferred(labels) else labels, **kwargs)
    if hasattr(data, "as_numpy_iterator"):
        return _in_memory(data.as_numpy_iterator(), size, labels, **kwargs)
    require(size is not None, "no size", "the height and width of the images, such as size=64")
    shape = require_size(size)
    if isinstance(data, (str, os.PathLike)):
        by_folders = labels is None or is_inferred(labels)
        require(
            by_folders,
            "labels for a folder",
            "one subfolder for each class",
            "Leave labels out; or read the images into an array, and give ImageArray the labels.",
        )
        return ImageFolder(data, shape, labels=None if labels is None else "inferred", **kwargs)
    return ImageDataset(data, shape, labels=labels, **kwargs)


def _require_unchanged(
    source: ImageSource,
    size: int | tuple[int, int] | None,
    labels: ArrayLike | None,
    others: Mapping[str, Any],
) -> None:
    """Raise if an ImageSource is given with another size, labels or other arguments."""
    require(
        size is None or source.size == require_size(size),
        f"size={size!r} for an ImageSource of size {source.size}",
        "the size of the source",
        "Build the source with the size that you need.",
    )
    given = list(others) if is_inferred(labels) else ["labels", *others]
    require(
        not given,
        f"{', '.join(given)} for an ImageSource",
        "the ImageSource alone",
        "Give these arguments when the source is built.",
    )


def _in_memory(
    elements: Iterable[Any],
    size: int | tuple[int, int] | None,
    labels: ArrayLike | None,
    **kwargs: Any,
) -> ImageArray:
    """An ImageArray of the images and labels of an iterator."""
    images, found = [], []
    for element in elements:
        images.append(decode(pixels_of(element), None if size is None else require_size(size)))
        if isinstance(element, tuple):
            found.append(element[1])
        elif isinstance(element, dict) and "label" in element:
            found.append(element["label"])
    require(bool(images), "an empty data set", "at least one image")
    shapes = {image.shape for image in images}
    require(
        len(shapes) == 1,
        f"images of {len(shapes)} sizes",
        "images of one size",
        "Set size=, to which they are then resized.",
    )
    return ImageArray(
        np.stack(images), (found or None) if is_inferred(labels) else labels, **kwargs
    )
