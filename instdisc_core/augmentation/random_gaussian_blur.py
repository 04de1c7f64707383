"""A Gaussian blur of a random width for each image of a batch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from einops import einsum
from keras import ops

from instdisc_core.augmentation.random_layer import RandomLayer, require_images, require_range
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_count


@keras.saving.register_keras_serializable(package="instdisc_core")
class RandomGaussianBlur(RandomLayer):
    """Blurs every image with a Gaussian of its own width.

    The kernel has the weights ``w_k ~ exp(-k^2 / (2 sigma^2))``, ``k = -r..r``, that add up to 1,
    along the rows and along the columns. Beyond its borders an image is reflected, without
    repeating the pixel at the border, so that a constant image stays constant everywhere.

    The blur is two batched products, with a matrix for the rows and one for the columns of every
    image. Computes in float32 under any dtype policy. Outside training images do not change.
    Keras's ``RandomGaussianBlur`` draws one width per batch, and pads with zeros, which darkens the
    borders.

    Args:
        kernel_size: ``2 r + 1``, in pixels: odd, and at least 1; 1 changes nothing.
        sigma: smallest and largest standard deviation in pixels, greater than 0. Each image's is
            uniform between them.
        seed: integer in ``[0, 2**31)`` that makes a run repeatable; None draws a fresh one.

    Raises:
        ValueError: an argument out of its range, or images that are not
            ``(batch, height, width, channels)`` with height and width greater than ``r``.

    Source:
        torchvision's ``GaussianBlur``, as documented.

    Example: ``RandomApply(RandomGaussianBlur(23, seed=0), rate=0.5, seed=1)``
    """

    def __init__(
        self,
        kernel_size: int,
        sigma: Sequence[float] = (0.1, 2.0),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        require_count("kernel_size", kernel_size)
        require(kernel_size % 2 == 1, f"kernel_size={kernel_size}", "an odd number of pixels")
        require_range("sigma", sigma)
        super().__init__(seed, **{"dtype": "float32", **kwargs})
        self.kernel_size, self.sigma = int(kernel_size), tuple(sigma)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Float images ``(batch, height, width, channels)``, in training blurred.

        Args:
            images: ``(batch, height, width, channels)``, in any unit, of any dtype.
            training: false changes nothing.
        """
        require_images(images)
        rows, columns = images.shape[1:3]
        require(
            min(rows, columns) > self.kernel_size // 2,
            f"images of {rows} x {columns} pixels, kernel_size={self.kernel_size}",
            f"at least {self.kernel_size // 2 + 1} pixels each way, to reflect at the borders",
            "Use a smaller kernel_size.",
        )
        images = ops.cast(images, self.compute_dtype)
        if not training:
            return images
        kernels = self._kernels(self.draw(ops.shape(images)[0]))
        by_row, by_column = self._matrices(kernels, rows), self._matrices(kernels, columns)
        images = einsum(by_row, images, "b out row, b row column c -> b out column c")
        return einsum(by_column, images, "b out column, b row column c -> b row out c")

    def draw(self, batch: int) -> Tensor:
        """Draw the standard deviations of a batch, ``(batch,)`` in pixels, as ``call`` does."""
        return self.uniform((batch,), *self.sigma)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "kernel_size": self.kernel_size, "sigma": self.sigma}

    def _kernels(self, sigma: Tensor) -> Tensor:
        """The weights ``(batch, kernel_size)`` of the pixels around each."""
        offset = np.arange(self.kernel_size, dtype="float32") - self.kernel_size // 2
        weights = ops.exp(ops.divide(-(offset**2), 2 * sigma[:, None] ** 2))
        return weights / ops.sum(weights, axis=1, keepdims=True)

    def _matrices(self, kernels: Tensor, pixels: int) -> Tensor:
        """Weights ``(batch, pixels, pixels)`` of the pixels in each output along one axis."""
        radius = self.kernel_size // 2
        reflected = np.pad(np.eye(pixels, dtype="float32"), ((radius, radius), (0, 0)), "reflect")
        shifts = np.stack([reflected[k : k + pixels] for k in range(self.kernel_size)])
        shifts = ops.convert_to_tensor(shifts)
        return einsum(kernels, shifts, "b offset, offset out pixel -> b out pixel")
