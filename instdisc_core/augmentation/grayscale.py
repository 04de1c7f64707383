"""Images without their color."""

from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.augmentation.random_layer import Shape, require_images
from instdisc_core.types import Tensor

# The share of red, green and blue in a gray pixel.
GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], "float32")


@keras.saving.register_keras_serializable(package="instdisc_core")
class Grayscale(keras.layers.Layer):
    """Replaces red, green and blue by ``gray = 0.299 red + 0.587 green + 0.114 blue``.

    Computes in float32 under any dtype policy. Keras's ``RandomGrayscale`` computes in the global
    one, and its configuration has no seed, so that a saved layer does not repeat its draws.

    Raises:
        ValueError: images that are not ``(batch, height, width, 3)``.

    Source:
        ITU-R BT.601, as torchvision's ``RandomGrayscale`` and Pillow have it.

    Example: ``RandomApply(Grayscale(), rate=0.2)``
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, images: Tensor) -> Tensor:
        """The gray images ``(batch, height, width, 3)``, their three channels equal."""
        require_images(images, channels=3)
        return ops.repeat(ops.matmul(images, GRAY_WEIGHTS[:, None]), 3, axis=-1)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        """The shape of the images."""
        return images_shape
