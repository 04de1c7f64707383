"""The augmentations of publications, as pipelines of layers."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from instdisc_core.augmentation.color_jitter import ColorJitter
from instdisc_core.augmentation.grayscale import Grayscale
from instdisc_core.augmentation.random_apply import RandomApply
from instdisc_core.augmentation.random_gaussian_blur import RandomGaussianBlur
from instdisc_core.augmentation.random_resized_crop import RandomResizedCrop
from instdisc_core.validation import require_number, require_size

Size = int | tuple[int, int]


def paper_augmentation(
    size: Size, flip: bool = True, seed: int | None = None
) -> keras.layers.Pipeline:
    """The augmentation of the paper's code: crop, grayscale, jitter of the colors, flip.

    Args:
        size: of the result in pixels, an integer or (height, width).
        flip: the paper's code flips on ImageNet, and does not on CIFAR-10.
        seed: integer that makes a run repeatable.

    Returns:
        A layer from pixels ``(batch, any height, any width, 3)`` in ``[0, 255]``, of any dtype, to
        float32 pixels ``(batch, height, width, 3)`` in ``[0, 255]``. As Keras's random layers, it
        augments unless it is called with ``training=False``; then it only resizes.

    Source:
        Wu et al.'s code: torchvision's crops of ``scale=(0.2, 1)``, grayscale with probability 0.2,
        color jitter of 0.4 in brightness, contrast, saturation and hue. The one deviation is that
        pixels are not rounded to 8 bits between the steps; ``ColorJitter`` states its size.

    Example: ``augmented = paper_augmentation(32, flip=False, seed=0)(images, training=True)``
    """
    draw = _seeds(seed)
    layers = [
        RandomApply(Grayscale(), 0.2, seed=draw()),
        ColorJitter(0.4, 0.4, 0.4, 0.4, seed=draw()),
    ]
    return _augmentation(size, flip, (0.2, 1.0), draw, layers)


def simclr_augmentation(
    size: Size,
    strength: float = 1.0,
    blur: bool = True,
    scale: Sequence[float] = (0.08, 1.0),
    flip: bool = True,
    seed: int | None = None,
    grayscale: float = 0.2,
) -> keras.layers.Pipeline:
    """The augmentation of SimCLR, which is stronger.

    Crop and flip; color jitter with probability 0.8; grayscale; Gaussian blur with probability 0.5.

    Args:
        size: of the result in pixels, an integer or (height, width).
        strength: of the jitter, in ``[0, 2.5]``: 1 for ImageNet, 0.5 for CIFAR-10.
        blur: blur with a kernel of a tenth of the smaller side. Its standard deviation is uniform
            from 0.1 to 2 pixels, a separate draw for each image. For a side of less than 20 pixels
            the kernel is 1 pixel, which changes nothing. SimCLR has no blur on CIFAR-10.
        scale: smallest and largest share of the area in a crop.
        flip: mirror half of the crops left to right.
        seed: integer that makes a run repeatable.
        grayscale: probability of taking an image's colors away, in ``[0, 1]``. Take 0 where color
            says what an image shows.

    Returns:
        See ``paper_augmentation``.

    Source:
        Chen et al., SimCLR, ICML 2020, appendix A; the colors as in its listing for PyTorch, which
        uses torchvision's color jitter. Deviation: the blur reflects images at their borders.
        SimCLR's code for TensorFlow pads with zeros. Averaged over the standard deviations, that
        darkens a corner to 0.58 of its value at 224 pixels and to 0.62 at 32, and the whole image
        by 0.7 % and 2.7 %.

    Example: ``augmenter = simclr_augmentation(32, strength=0.5, blur=False, seed=0)``
    """
    require_number("strength", strength, 0, 2.5, open_above=False)
    require_number("grayscale", grayscale, 0, 1, open_above=False)
    draw = _seeds(seed)
    amounts = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    layers = [
        RandomApply(ColorJitter(*amounts, seed=draw()), 0.8, seed=draw()),
        RandomApply(Grayscale(), grayscale, seed=draw()),
    ]
    if blur:
        kernel_size = min(require_size(size)) // 20 * 2 + 1
        layers.append(RandomApply(RandomGaussianBlur(kernel_size, seed=draw()), 0.5, seed=draw()))
    return _augmentation(size, flip, scale, draw, layers)


def _augmentation(
    size: Size,
    flip: bool,
    scale: Sequence[float],
    draw: Callable[[], int | None],
    layers: list[keras.layers.Layer],
) -> keras.layers.Pipeline:
    """A pipeline that scales pixels to ``[0, 1]``, crops, applies the layers, and scales back."""
    height, width = require_size(size)
    crop = RandomResizedCrop(height, width, scale, flip=flip, seed=draw(), dtype="float32")
    to_unit = keras.layers.Rescaling(1 / 255, dtype="float32")
    to_pixels = keras.layers.Rescaling(255, dtype="float32")
    # A Pipeline passes images on as they are. Sequential would round them to the global dtype.
    return keras.layers.Pipeline([to_unit, crop, *layers, to_pixels])


def _seeds(seed: int | None) -> Callable[[], int | None]:
    """A function that returns a different seed for every layer."""
    if seed is None:
        return lambda: None
    states = iter(np.random.SeedSequence(seed).generate_state(16))
    return lambda: int(next(states) >> 1)
