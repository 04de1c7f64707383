"""Layers one after the other, and on some of the images."""

import inspect

import keras
from keras import ops

from instdisc_core.augmentation.random_layer import RandomLayer
from instdisc_core.validation import require_number


@keras.saving.register_keras_serializable(package="instdisc_core")
class Chain(keras.layers.Layer):
    """Layers one after the other, in float32 under any dtype policy.

    ``keras.Sequential`` takes the global policy, now and when it is loaded, and would round pixels
    to bfloat16.

    Args:
        layers: each from images to images.

    Example: ``augmenter = Chain([RandomResizedCrop(32, 32, dtype="float32")])``
    """

    def __init__(self, layers, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.layers = list(layers)

    def build(self, images_shape):
        """Build the layers."""
        for layer in self.layers:
            layer.build(images_shape)
            images_shape = layer.compute_output_shape(images_shape)

    def call(self, images, training=False):
        """The images after all layers."""
        for layer in self.layers:
            images = layer(images, training=training) if _trains(layer) else layer(images)
        return images

    def compute_output_shape(self, images_shape):
        """The shape after all layers."""
        for layer in self.layers:
            images_shape = layer.compute_output_shape(images_shape)
        return images_shape

    def get_config(self):
        """The arguments that rebuild this layer."""
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config):
        """Rebuild a layer from its configuration."""
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})


def _trains(layer):
    """Whether a layer's call tells training from evaluation."""
    return "training" in inspect.signature(layer.call).parameters


@keras.saving.register_keras_serializable(package="instdisc_core")
class RandomApply(RandomLayer):
    """Applies a layer to some of the images, each by a draw of its own.

    Args:
        layer: from images to images of the same shape.
        rate: probability that it is applied to an image, in ``[0, 1]``.
        seed: integer in ``[0, 2**31)`` that makes a run repeatable; None draws a fresh one.

    Example: ``RandomApply(ColorJitter(0.8, 0.8, 0.8, 0.2), rate=0.8)``
    """

    def __init__(self, layer, rate, seed=None, **kwargs):
        require_number("rate", rate, 0, 1, open_above=False)
        super().__init__(seed, **{"dtype": "float32", **kwargs})
        self.layer, self.rate = layer, rate

    def build(self, images_shape):
        """Build the layer."""
        self.layer.build(images_shape)

    def call(self, images, training=False):
        """The images, in training with some of them changed."""
        if not training:
            return images
        chosen = self.uniform((ops.shape(images)[0], 1, 1, 1)) < self.rate
        changed = self.layer(ops.copy(images), training=True)  # some layers write into their input
        return ops.where(chosen, changed, images)

    def get_config(self):
        """The arguments that rebuild this layer."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "rate": self.rate}

    @classmethod
    def from_config(cls, config):
        """Rebuild a layer from its configuration."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})
