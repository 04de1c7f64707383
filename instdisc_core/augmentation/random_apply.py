"""A layer that is applied to some of the images."""

from typing import Any, Self

import keras
from keras import ops

from instdisc_core.augmentation.random_layer import RandomLayer, Shape
from instdisc_core.types import Tensor
from instdisc_core.validation import require_number


@keras.saving.register_keras_serializable(package="instdisc_core")
class RandomApply(RandomLayer):
    """Applies a layer to some of the images, with a separate draw for each image.

    Keras has a rate only inside some of its layers, such as ``RandomGrayscale``.

    Args:
        layer: from images to images of the same shape.
        rate: probability that it is applied to an image, in ``[0, 1]``.
        seed: integer in ``[0, 2**31)`` that makes a run repeatable; None draws a fresh one.

    Raises:
        ValueError: a rate or a seed out of its range.

    Example: ``RandomApply(ColorJitter(0.8, 0.8, 0.8, 0.2), rate=0.8)``
    """

    def __init__(
        self, layer: keras.layers.Layer, rate: float, seed: int | None = None, **kwargs: Any
    ) -> None:
        require_number("rate", rate, 0, 1, open_above=False)
        super().__init__(seed, **{"dtype": "float32", **kwargs})
        self.layer, self.rate = layer, rate

    def build(self, images_shape: Shape) -> None:
        """Build the layer."""
        self.layer.build(images_shape)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Images ``(batch, height, width, channels)``, some of them changed in training."""
        if not training:
            return images
        chosen = self.uniform((ops.shape(images)[0], 1, 1, 1)) < self.rate
        changed = self.layer(ops.copy(images), training=True)  # some layers write into their input
        return ops.where(chosen, changed, images)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "rate": self.rate}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuild a layer from its configuration."""
        return cls(**keras.saving.deserialize_keras_object(config))
