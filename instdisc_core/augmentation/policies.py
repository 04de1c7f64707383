"""Augmentations as publications have them, made of layers."""

import keras
import numpy as np

from instdisc_core.augmentation.color_jitter import ColorJitter
from instdisc_core.augmentation.combine import Chain, RandomApply
from instdisc_core.augmentation.grayscale import Grayscale
from instdisc_core.augmentation.random_gaussian_blur import RandomGaussianBlur
from instdisc_core.augmentation.random_resized_crop import RandomResizedCrop
from instdisc_core.validation import require_number, require_size


def paper_augmentation(size, flip=True, seed=None):
    """The augmentation of the paper's code: crop, grayscale, jitter of the colors, flip.

    Args:
        size: of the result in pixels, an integer or (height, width).
        flip: the code for ImageNet flips, that for CIFAR-10 does not.
        seed: integer that makes a run repeatable.

    Returns:
        A layer from pixels ``(batch, any height, any width, 3)`` in ``[0, 255]``, of any dtype, to
        float32 pixels ``(batch, height, width, 3)`` in ``[0, 255]``.

    Source:
        Wu et al.'s code: torchvision's crops of ``scale=(0.2, 1)``, grayscale with probability 0.2,
        color jitter of 0.4 in brightness, contrast, saturation and hue. The one deviation is that
        pixels are not rounded to 8 bits between the steps; ``ColorJitter`` states its size.

    Example: ``InstanceDiscrimination(encoder, n, augmenter=paper_augmentation(32, flip=False))``
    """
    draw = _seeds(seed)
    layers = [
        RandomApply(Grayscale(), 0.2, seed=draw()),
        ColorJitter(0.4, 0.4, 0.4, 0.4, seed=draw()),
    ]
    return _augmentation(size, flip, (0.2, 1.0), draw, layers)


def simclr_augmentation(size, strength=1.0, blur=True, scale=(0.08, 1.0), seed=None):
    """A stronger augmentation, as contrastive methods have it.

    Crop and flip; with probability 0.8 jitter of the colors; grayscale with probability 0.2; with
    probability 0.5 a Gaussian blur.

    Args:
        size: of the result in pixels, an integer or (height, width).
        strength: of the jitter, in ``[0, 2.5]``: 1 for ImageNet, 0.5 for CIFAR-10.
        blur: blur by a kernel of a tenth of the smaller side and of a width, for each image its
            own, that is uniform from 0.1 to 2 pixels. For a side of less than 20 pixels the kernel
            is 1 pixel, which changes nothing. SimCLR leaves the blur out on CIFAR-10.
        scale: smallest and largest share of the area in a crop.
        seed: integer that makes a run repeatable.

    Returns:
        See ``paper_augmentation``.

    Source:
        Chen et al., SimCLR, ICML 2020, appendix A; the colors as in its listing for PyTorch, which
        uses torchvision's color jitter. Deviation: the blur reflects images at their borders.
        SimCLR's code for TensorFlow pads with zeros, which darkens a corner to 0.58 of its value at
        224 pixels and to 0.62 at 32, on average over the widths, and the whole image by 0.7 % and
        2.7 %.

    Example: ``augmenter = simclr_augmentation(32, strength=0.5, blur=False, seed=0)``
    """
    require_number("strength", strength, 0, 2.5, open_above=False)
    draw = _seeds(seed)
    amounts = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    layers = [
        RandomApply(ColorJitter(*amounts, seed=draw()), 0.8, seed=draw()),
        RandomApply(Grayscale(), 0.2, seed=draw()),
    ]
    if blur:
        kernel_size = min(require_size(size)) // 20 * 2 + 1
        layers.append(RandomApply(RandomGaussianBlur(kernel_size, seed=draw()), 0.5, seed=draw()))
    return _augmentation(size, True, scale, draw, layers)


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
