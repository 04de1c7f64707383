"""A random resized crop for each image of a batch."""

import math

import keras
from einops import einsum
from keras import ops

from instdisc_core.augmentation.random_layer import RandomLayer, require_images, require_range
from instdisc_core.validation import require_count

ATTEMPTS = 10


@keras.saving.register_keras_serializable(package="instdisc_core")
class RandomResizedCrop(RandomLayer):
    """Cuts a random part out of every image and resizes it, every image by a draw of its own.

    A crop has a share of the image's area, uniform in ``scale``, and an aspect ratio, uniform in
    its logarithm between the bounds of ``ratio``; every position has equal probability. Resizing
    is bilinear, and where it shrinks it averages over what a pixel covers. Crop, resizing and flip
    are two batched products, with a matrix for the rows and one for the columns of every image.

    Out of training images are resized whole.

    Args:
        height, width: of the result, in pixels.
        scale: smallest and largest share of the area, in ``(0, 1]``.
        ratio: smallest and largest width over height, greater than 0.
        flip: mirror every second image, left to right.
        seed: integer in ``[0, 2**31)`` that makes a run repeatable; None draws a fresh one.

    Raises:
        ValueError: an argument out of its range, or images that are not
            ``(batch, height, width, channels)``.

    Source:
        Szegedy et al., CVPR 2015; the draw is torchvision's: a crop that does not fit is drawn
        again, ten times at most, and then the largest central one of an allowed ratio is taken, of
        at least one pixel.

    Example:
    ```python
    crop = RandomResizedCrop(32, 32, scale=(0.2, 1.0), flip=True, seed=0)
    crops = crop(images, training=True)
    ```
    """

    def __init__(
        self, height, width, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=False, seed=None, **kwargs
    ):
        require_count("height", height)
        require_count("width", width)
        require_range("scale", scale, 1)
        require_range("ratio", ratio)
        super().__init__(seed, **kwargs)
        self.height, self.width = int(height), int(width)
        self.scale, self.ratio = tuple(scale), tuple(ratio)
        self.flip = bool(flip)

    def call(self, images, training=False):
        """Crops ``(batch, height, width, channels)``, of the layer's compute dtype.

        Args:
            images: ``(batch, any height, any width, channels)``.
            training: false resizes the whole image.
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

    def boxes(self, batch, rows, columns):
        """Draw crops: top, left, height and width, whole numbers as float tensors ``(batch,)``."""
        shape = (batch, ATTEMPTS)
        area = self.uniform(shape, *self.scale) * (rows * columns)
        ratio = ops.exp(self.uniform(shape, *(math.log(bound) for bound in self.ratio)))
        width, height = ops.round(ops.sqrt(area * ratio)), ops.round(ops.sqrt(area / ratio))
        fits = (width >= 1) & (width <= columns) & (height >= 1) & (height <= rows)
        first = ops.argmax(fits, axis=1)[:, None]
        whole = columns / rows  # the fallback, where none fits
        fallback_width = columns if whole < self.ratio[1] else max(1, round(rows * self.ratio[1]))
        fallback_height = rows if whole > self.ratio[0] else max(1, round(columns / self.ratio[0]))
        found = ops.any(fits, axis=1)
        width = ops.where(found, ops.take_along_axis(width, first, axis=1)[:, 0], fallback_width)
        height = ops.where(found, ops.take_along_axis(height, first, axis=1)[:, 0], fallback_height)
        top = ops.floor(self.uniform((batch,)) * (rows - height + 1))
        left = ops.floor(self.uniform((batch,)) * (columns - width + 1))
        top = ops.where(found, top, (rows - height) // 2)
        left = ops.where(found, left, (columns - width) // 2)
        return top, left, height, width

    def compute_output_shape(self, images_shape):
        """The shape of the crops."""
        return (images_shape[0], self.height, self.width, images_shape[-1])

    def get_config(self):
        """The arguments that rebuild this layer."""
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "scale": self.scale,
            "ratio": self.ratio,
            "flip": self.flip,
        }


def _interpolation(start, length, pixels, outputs):
    """Weights ``(batch, outputs, pixels)`` of the pixels in each output along one axis.

    A triangle around the output's center, as wide as an output is apart from the next and at least
    a pixel, over the pixels inside the crop.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixel = ops.arange(pixels, dtype="float32")[None, None, :]
    step = length / outputs
    center = start + (ops.arange(outputs, dtype="float32")[None, :, None] + 0.5) * step - 0.5
    weights = ops.relu(1 - ops.abs(pixel - center) / ops.maximum(step, 1.0))
    weights = ops.where((pixel >= start) & (pixel < start + length), weights, 0.0)
    return weights / ops.sum(weights, axis=2, keepdims=True)
