"""What is done to an image before the encoder sees it: the recipes, and a random resized crop.

The recipes take and give pixels in ``[0, 255]``, compute in float32 whatever the encoder computes
in, and draw for every image anew. They are made of Keras's layers, but for the crop and for the
choice of images that a layer is applied to, which Keras lacks.
"""

import inspect
import math

import keras
import numpy as np
from einops import einsum
from keras import ops

from instdisc_core.validation import require, require_count, require_number, require_size

ATTEMPTS = 10


def paper_augmentation(size, flip=True, seed=None):
    """The augmentation of the paper's code: crop, grayscale, jitter of the colours, flip.

    Args:
        size: of the result in pixels, an integer or (height, width).
        flip: the code for ImageNet flips, that for CIFAR-10 does not.
        seed: integer that makes a run repeatable.

    Returns:
        A layer from pixels ``(batch, any height, any width, 3)`` in ``[0, 255]``, of any dtype, to
        float32 pixels ``(batch, height, width, 3)`` in ``[0, 255]``.

    Source:
        Wu et al.'s code: crops of ``scale=(0.2, 1)``, grayscale with probability 0.2, jitter of 0.4
        in brightness, contrast, saturation and hue. See ``color_jitter`` for how Keras's layers
        differ from torchvision's.

    Example: ``InstanceDiscrimination(encoder, n, augmenter=paper_augmentation(32, flip=False))``
    """
    draw = _seeds(seed)
    return _augmentation(
        size,
        flip,
        (0.2, 1.0),
        draw,
        [
            keras.layers.RandomGrayscale(0.2, seed=draw(), dtype="float32"),
            *color_jitter(0.4, 0.4, 0.4, 0.4, draw()),
        ],
    )


def simclr_augmentation(size, strength=1.0, blur=True, scale=(0.08, 1.0), seed=None):
    """A stronger augmentation, as contrastive methods have it.

    Crop and flip; with probability 0.8 jitter of the colours; grayscale with probability 0.2; with
    probability 0.5 a Gaussian blur.

    Args:
        size: of the result in pixels, an integer or (height, width).
        strength: of the jitter: 1 for ImageNet, 0.5 for CIFAR-10; at least 0.
        blur: blur by a kernel of a tenth of the height; SimCLR leaves it out on CIFAR-10.
        scale: smallest and largest share of the area in a crop.
        seed: integer that makes a run repeatable.

    Returns:
        See ``paper_augmentation``.

    Source:
        Chen et al., SimCLR, ICML 2020, appendix A. Keras's blur draws one width a batch.

    Example: ``augmenter = simclr_augmentation(32, strength=0.5, blur=False, seed=0)``
    """
    require_number("strength", strength, 0)
    draw = _seeds(seed)
    jitter = color_jitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, draw())
    layers = [
        RandomApply(Chain(jitter), 0.8, seed=draw()),
        keras.layers.RandomGrayscale(0.2, seed=draw(), dtype="float32"),
    ]
    if blur:
        kernel = require_size(size)[0] // 20 * 2 + 1
        layers.append(
            keras.layers.RandomGaussianBlur(
                (0.5, 0.5), kernel, (0.1, 2.0), (0, 1), seed=draw(), dtype="float32"
            )
        )
    return _augmentation(size, True, scale, draw, layers)


def color_jitter(brightness, contrast, saturation, hue, seed=None):
    """Keras's layers that change colours about as torchvision's ``ColorJitter`` of these amounts.

    Args:
        brightness: largest change, as a share of the range of the pixels. It is added; torchvision
            multiplies.
        contrast: largest change of the factor, about each channel's mean; torchvision's is about
            that of the gray image.
        saturation: largest change of the factor. Keras draws ``u / (1 - u)`` with uniform ``u``.
        hue: largest turn, as a share of the circle.
        seed: integer that makes a run repeatable.

    Returns:
        List of layers for float pixels in ``[0, 1]``, those of amount 0 left out. They are applied
        in this order; torchvision's in a random one. (``keras.layers.RandomColorJitter`` is made of
        the same layers, but only adds contrast, and computes in the global dtype policy.)

    Example: ``augmenter = Chain(color_jitter(0.4, 0.4, 0.4, 0.1, seed=0))``
    """
    for name, amount in (("brightness", brightness), ("contrast", contrast), ("hue", hue)):
        require_number(name, amount, 0, 1, open_above=False)
    require_number("saturation", saturation, 0)
    low, high = max(0.0, 1 - saturation), 1 + saturation
    draw = _seeds(seed)
    common = {"value_range": (0, 1), "dtype": "float32"}
    made = {
        "RandomBrightness": (brightness, brightness),
        "RandomContrast": (contrast, (contrast, contrast)),  # one number would only add contrast
        "RandomSaturation": (saturation, (low / (1 + low), high / (1 + high))),
        "RandomHue": (hue, min(1.0, 2 * hue)),  # Keras turns by half of its factor
    }
    return [
        getattr(keras.layers, name)(factor, seed=draw(), **common)
        for name, (amount, factor) in made.items()
        if amount
    ]


def _augmentation(size, flip, scale, draw, layers):
    """Crop and layers for pixels in ``[0, 1]``, between layers to and from ``[0, 255]``."""
    height, width = require_size(size)
    crop = RandomResizedCrop(height, width, scale, flip=flip, seed=draw(), dtype="float32")
    to_unit = keras.layers.Rescaling(1 / 255, dtype="float32")
    return Chain([to_unit, crop, *layers, keras.layers.Rescaling(255, dtype="float32")])


def _seeds(seed):
    """A function that gives every layer a seed of its own."""
    if seed is None:
        return lambda: None
    states = iter(np.random.SeedSequence(seed).generate_state(16))
    return lambda: int(next(states) >> 1)


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
class RandomApply(keras.layers.Layer):
    """Applies a layer to some of the images, each by a draw of its own.

    Args:
        layer: from images to images of the same shape.
        rate: probability that it is applied to an image, in ``[0, 1]``.
        seed: integer that makes a run repeatable; None draws a fresh one.

    Example: ``RandomApply(Chain(color_jitter(0.8, 0.8, 0.8, 0.2)), rate=0.8)``
    """

    def __init__(self, layer, rate, seed=None, **kwargs):
        require_number("rate", rate, 0, 1, open_above=False)
        super().__init__(**{"dtype": "float32", **kwargs})
        self.layer, self.rate, self.seed = layer, rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, images_shape):
        """Build the layer."""
        self.layer.build(images_shape)

    def call(self, images, training=False):
        """The images, in training with some of them changed."""
        if not training:
            return images
        shape = (ops.shape(images)[0], 1, 1, 1)
        chosen = keras.random.uniform(shape, seed=self.seed_generator) < self.rate
        changed = self.layer(ops.copy(images), training=True)  # some layers write into their input
        return ops.where(chosen, changed, images)

    def compute_output_shape(self, images_shape):
        """The shape of the images."""
        return images_shape

    def get_config(self):
        """The arguments that rebuild this layer."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "rate": self.rate, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        """Rebuild a layer from its configuration."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


@keras.saving.register_keras_serializable(package="instdisc_core")
class RandomResizedCrop(keras.layers.Layer):
    """Cuts a random part out of every image and resizes it, every image by a draw of its own.

    A crop has a share of the image's area, uniform in ``scale``, and an aspect ratio, uniform in
    its logarithm between the bounds of ``ratio``; it lies anywhere with equal probability. Resizing
    is bilinear, and where it shrinks it averages over what a pixel covers. Crop, resizing and flip
    are two batched products, with a matrix for the rows and one for the columns of every image.

    Out of training images are resized whole.

    Args:
        height, width: of the result, in pixels.
        scale: smallest and largest share of the area, in ``(0, 1]``.
        ratio: smallest and largest width over height, greater than 0.
        flip: mirror every second image, left to right.
        seed: integer that makes a run repeatable; None draws a fresh one.

    Raises:
        ValueError: an argument out of its range, or images that are not
            ``(batch, height, width, channels)``.

    Source:
        Szegedy et al., CVPR 2015; the draw is torchvision's: a crop that does not fit is drawn
        again, ten times at most, and then the largest central one of an allowed ratio is taken.

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
        for name, bounds, highest in (("scale", scale, 1), ("ratio", ratio, math.inf)):
            require(
                isinstance(bounds, (tuple, list)) and len(bounds) == 2,
                f"{name}={bounds!r}",
                "a pair of numbers, the smallest and the largest",
            )
            for bound in bounds:
                require_number(name, bound, 0, highest, open_below=True, open_above=highest > 1)
            require(bounds[0] <= bounds[1], f"{name}={bounds!r}", "the smaller number first")
        super().__init__(**kwargs)
        self.height, self.width = int(height), int(width)
        self.scale, self.ratio = tuple(scale), tuple(ratio)
        self.flip = bool(flip)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        """Crops ``(batch, height, width, channels)``, of the layer's compute dtype.

        Args:
            images: ``(batch, any height, any width, channels)``.
            training: false resizes the whole image.
        """
        require(
            len(images.shape) == 4,
            f"images of shape {tuple(images.shape)}",
            "(batch, height, width, channels)",
        )
        batch, (rows, columns) = ops.shape(images)[0], images.shape[1:3]
        if training:
            top, left, crop_rows, crop_columns = self.boxes(batch, rows, columns)
            mirrored = self._uniform((batch,)) < (0.5 if self.flip else 0.0)
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
        area = self._uniform(shape, *self.scale) * (rows * columns)
        ratio = ops.exp(self._uniform(shape, *(math.log(bound) for bound in self.ratio)))
        width, height = ops.round(ops.sqrt(area * ratio)), ops.round(ops.sqrt(area / ratio))
        fits = (width >= 1) & (width <= columns) & (height >= 1) & (height <= rows)
        first = ops.argmax(fits, axis=1)[:, None]
        whole = columns / rows  # the fallback, where none fits
        fallback_width = columns if whole < self.ratio[1] else round(rows * self.ratio[1])
        fallback_height = rows if whole > self.ratio[0] else round(columns / self.ratio[0])
        found = ops.any(fits, axis=1)
        width = ops.where(found, ops.take_along_axis(width, first, axis=1)[:, 0], fallback_width)
        height = ops.where(found, ops.take_along_axis(height, first, axis=1)[:, 0], fallback_height)
        top = ops.floor(self._uniform((batch,)) * (rows - height + 1))
        left = ops.floor(self._uniform((batch,)) * (columns - width + 1))
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
            "seed": self.seed,
        }

    def _uniform(self, shape, low=0.0, high=1.0):
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.seed_generator)


def _interpolation(start, length, pixels, outputs):
    """Weights ``(batch, outputs, pixels)`` of the pixels in each output along one axis.

    A triangle around the output's centre, as wide as an output is apart from the next and at least
    a pixel, over the pixels inside the crop.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixel = ops.arange(pixels, dtype="float32")[None, None, :]
    step = length / outputs
    centre = start + (ops.arange(outputs, dtype="float32")[None, :, None] + 0.5) * step - 0.5
    weights = ops.relu(1 - ops.abs(pixel - centre) / ops.maximum(step, 1.0))
    weights = ops.where((pixel >= start) & (pixel < start + length), weights, 0.0)
    return weights / ops.sum(weights, axis=2, keepdims=True)
