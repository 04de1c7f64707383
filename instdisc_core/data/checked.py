"""Checks of training data: there are images, they are finite, and indices fit 32 bits."""

from types import GeneratorType
from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_finite

INT32 = np.iinfo("int32")


def with_narrow_indices(data: Any) -> Any:
    """The same data, with indices that keep their meaning in 32 bits.

    JAX cuts integers to 32 bits, so that index 2**32 + 1 would train row 1. An index that does not
    fit becomes the nearest integer that does. No row has it, so training counts and reports it.

    Args:
        data: what ``fit`` takes. A ``PyDataset`` or a generator of ``(images, indices)`` is
            wrapped; anything else is returned as it is.
    """
    if isinstance(data, keras.utils.PyDataset):
        return NarrowIndices(data)
    if isinstance(data, GeneratorType):
        return (narrow(batch) for batch in data)
    return data


class NarrowIndices(keras.utils.PyDataset):
    """A ``PyDataset`` whose indices are int32; see ``with_narrow_indices``.

    Args:
        dataset: the data set to wrap.
    """

    def __init__(self, dataset: keras.utils.PyDataset) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self.dataset = dataset

    @property
    def num_batches(self) -> int | None:
        """That of the wrapped data set."""
        return self.dataset.num_batches

    def __getitem__(self, number: int) -> Any:
        return narrow(self.dataset[number])

    def on_epoch_begin(self) -> None:
        """Call that of the wrapped data set."""
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Call that of the wrapped data set."""
        self.dataset.on_epoch_end()


def narrow(batch: Any) -> Any:
    """A batch ``(images, indices, ...)`` whose indices, if NumPy integers, are int32."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        return batch
    indices = batch[1]
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        return batch
    return (batch[0], np.clip(indices, INT32.min, INT32.max).astype("int32"), *batch[2:])


def require_images(data: Any) -> None:
    """Raise if arrays, or a ``PyDataset``, hold no images."""
    if isinstance(data, keras.utils.PyDataset):
        empty = data.num_batches == 0
    else:
        empty = any(np.shape(array)[:1] == (0,) for array in _arrays(data))
    require(not empty, "no images", "at least one batch", "Look at what fit was given.")


def require_finite_images(data: Any) -> None:
    """Raise if arrays of floating-point pixels hold NaN or an infinity."""
    for array in _arrays(data):
        if array.dtype.kind == "f":
            require_finite("data", array, unit="images")


def finite_images(images: Any) -> Tensor | None:
    """Which images of a batch are finite.

    Args:
        images: a tensor, or nested dicts and lists of tensors.

    Returns:
        A boolean tensor ``(batch,)``, or None for integer pixels, which are always finite.
    """
    finite = None
    for part in keras.tree.flatten(images):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(part.dtype)):
            axes = tuple(range(1, len(part.shape)))
            these = ops.all(ops.isfinite(part), axis=axes)
            finite = these if finite is None else ops.logical_and(finite, these)
    return finite


def without_non_finite(images: Any) -> Any:
    """Replace each image that is not finite by the first finite image of the batch.

    If no image is finite, zeros replace them. A NaN would make the statistics of the whole batch
    NaN.
    """
    finite = finite_images(images)
    if finite is None:
        return images
    first = ops.argmax(finite)

    def cleaned(part: Tensor) -> Tensor:
        keep = ops.reshape(finite, (-1,) + (1,) * (len(part.shape) - 1))
        instead = ops.where(keep[first], part[first], ops.zeros_like(part[first]))
        return ops.where(keep, part, instead)

    return keras.tree.map_structure(cleaned, images)


def _arrays(data: Any) -> list[np.ndarray]:
    return [part for part in keras.tree.flatten(data) if isinstance(part, np.ndarray)]
