"""A random resized crop for each image of a batch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from einops import einsum
from keras import ops

from instdisc_core.augmentation.random_layer import (
    RandomLayer,
    Shape,
    require_images,
    require_range,
)
from instdisc_core.types import Tensor
from instdisc_core.validation import require_count

ATTEMPTS = 10


class Boxes(NamedTuple):
    """Where the crops of a batch are: whole numbers of pixels, float32 ``(batch,)`` each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class RandomResizedCrop(RandomLayer):
    """Cuts a random part out of every image and resizes it, with a separate draw for each image.

    A crop has a share of the image's area, uniform in ``scale``, and an aspect ratio, uniform in
    its logarithm between the bounds of ``ratio``; every position has equal probability. Resizing
    is bilinear; where it shrinks an image, it averages over the area of each new pixel. Crop,
    resizing and flip are two batched products, with a matrix for the rows and one for the columns
    of every image. Outside training whole images are resized.

    Keras's ``RandomCrop`` cuts all images at one place and does not resize; its ``RandomZoom`` has
    no area or aspect ratio as publications state them.

    Args:
        height, width: of the result, in pixels.
        scale: smallest and largest share of the area, in ``(0, 1]``.
        ratio: smallest and largest width over height, greater than 0.
        flip: mirror an image left to right with probability 0.5.
        seed: integer in ``[0, 2**31)`` that makes a run repeatable; None draws a fresh one.

    Raises:
        ValueError: an argument out of its range, or images that are not
            ``(batch, height, width, channels)``.

    Source:
        Szegedy et al., CVPR 2015. The draw is torchvision's: a crop that does not fit is drawn
        again, at most ten times. After that it is the largest central crop of an allowed ratio,
        with at least one pixel.

    Example:
    ```python
    crop = RandomResizedCrop(32, 32, scale=(0.2, 1.0), flip=True, seed=0)
    crops = crop(images, training=True)
    ```
    """

    def __init__(
        self,
        height: int,
        width: int,
        scale: Sequence[float] = (0.2, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        require_count("height", height)
        require_count("width", width)
        require_range("scale", scale, 1)
        require_range("ratio", ratio)
        super().__init__(seed, **kwargs)
        self.height, self.width = int(height), int(width)
        self.scale, self.ratio = tuple(scale), tuple(ratio)
        self.flip = bool(flip)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Crops ``(batch, height, width, channels)``, of the layer's compute dtype.

        Args:
            images: ``(batch, any height, any width, channels)``.
            training: false resizes whole images.
        """
        require_images(images)
        batch, (rows, columns) = ops.shape(images)[0], images.shape[1:3]
        if training:
            top, left, crop_rows, crop_columns = self.boxes(batch, rows, columns)
            mirrored = self.uniform((batch,)) < (0.5 if self.flip else 0.0)
        else:
            zero = ops.zeros((batch,))
            top, left, crop_rows, crop_columns = zero, zero, zero + rows, zero + columns
            mirrored = zero > 0
        by_row = _interpolation(top, crop_rows, rows, self.height)
        by_column = _interpolation(left, crop_columns, columns, self.width)
        by_column = ops.where(mirrored[:, None, None], ops.flip(by_column, axis=1), by_column)
        images = ops.cast(images, self.compute_dtype)
        by_row, by_column = (ops.cast(m, self.compute_dtype) for m in (by_row, by_column))
        crops = einsum(by_row, images, "b out row, b row column c -> b out column c")
        return einsum(by_column, crops, "b out column, b row column c -> b row out c")

    def boxes(self, batch: int, rows: int, columns: int) -> Boxes:
        """Draw the crops of a batch of images of this size, as ``call`` does."""
        drawn = self.uniform((batch, 2 * ATTEMPTS + 2))  # at once: each draw waits for a GPU
        smallest, largest = self.scale
        lowest, highest = map(math.log, self.ratio)
        area = (smallest + (largest - smallest) * drawn[:, :ATTEMPTS]) * (rows * columns)
        ratio = ops.exp(lowest + (highest - lowest) * drawn[:, ATTEMPTS:-2])
        width, height = ops.round(ops.sqrt(area * ratio)), ops.round(ops.sqrt(area / ratio))
        fits = (width >= 1) & (width <= columns) & (height >= 1) & (height <= rows)
        first = ops.argmax(fits, axis=1)[:, None]
        whole = columns / rows  # the fallback, where none fits
        fallback_width = columns if whole < self.ratio[1] else max(1, round(rows * self.ratio[1]))
        fallback_height = rows if whole > self.ratio[0] else max(1, round(columns / self.ratio[0]))
        found = ops.any(fits, axis=1)
        width = ops.where(found, ops.take_along_axis(width, first, axis=1)[:, 0], fallback_width)
        height = ops.where(found, ops.take_along_axis(height, first, axis=1)[:, 0], fallback_height)
        top = ops.floor(drawn[:, -2] * (rows - height + 1))
        left = ops.floor(drawn[:, -1] * (columns - width + 1))
        top = ops.where(found, top, (rows - height) // 2)
        left = ops.where(found, left, (columns - width) // 2)
        return Boxes(top, left, height, width)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        """The shape of the crops."""
        return (images_shape[0], self.height, self.width, images_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "scale": self.scale,
            "ratio": self.ratio,
            "flip": self.flip,
        }


def _interpolation(start: Tensor, length: Tensor, pixels: int, outputs: int) -> Tensor:
    """Weights ``(batch, outputs, pixels)`` of the pixels in each output along one axis.

    They are a triangle around the output's center over the pixels inside the crop. Its half width
    is the distance between two outputs, and at least a pixel.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixel = ops.arange(pixels, dtype="float32")[None, None, :]
    step = length / outputs
    center = start + (ops.arange(outputs, dtype="float32")[None, :, None] + 0.5) * step - 0.5
    weights = ops.relu(1 - ops.abs(pixel - center) / ops.maximum(step, 1.0))
    weights = ops.where((pixel >= start) & (pixel < start + length), weights, 0.0)
    return weights / ops.sum(weights, axis=2, keepdims=True)
