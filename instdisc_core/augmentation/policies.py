"""Augmentations as publications have them, made of layers."""

import keras
import numpy as np

from instdisc_core.augmentation.combine import Chain, RandomApply
from instdisc_core.augmentation.random_resized_crop import RandomResizedCrop
from instdisc_core.validation import require_number, require_size


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
