"""Resizing and JPEG decoding by vector instructions, where the packages for it are installed."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import PIL.Image

PACKAGES = ("cykooz_resizer", "simplejpeg")  # the extra "fast-images"


@cache
def available() -> bool:
    """Whether the packages are installed."""
    try:
        for name in PACKAGES:
            import_module(name)
    except ImportError:
        return False
    return True


def jpeg_pixels(data: bytes, image: "PIL.Image.Image") -> np.ndarray | None:
    """Pixels ``(height, width, 3)`` of a JPEG, uint8, or None where Pillow has to decode it.

    The same library decodes, libjpeg-turbo, but into an array. The pixels are Pillow's if both were
    built with equal versions of it.

    Args:
        data: the bytes of the file.
        image: Pillow's image of them, not decoded yet. Its size is the size to decode at.
    """
    if not available() or image.format != "JPEG" or image.mode != "RGB":
        return None
    import simplejpeg

    width, height = image.size
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError:  # broken, or of a rare kind: Pillow decodes it or says what is wrong
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def fitted(image: "np.ndarray | PIL.Image.Image", size: tuple[int, int]) -> np.ndarray:
    """The largest central part of the wanted shape, resized bilinearly; uint8, RGB.

    With the packages, a value differs from Pillow's by at most 1 level of 255.

    Args:
        image: pixels ``(height, width, 3)``, uint8, or a Pillow image in RGB.
        size: ``(height, width)`` in pixels.
    """
    from PIL import Image, ImageOps

    if not available():
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        return np.asarray(ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR))
    from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

    options = ResizeOptions(
        ResizeAlg.convolution(FilterType.bilinear), use_alpha=False, fit_into_destination=True
    )
    if isinstance(image, Image.Image):
        target = Image.new("RGB", size[::-1])
        Resizer().resize_pil(image, target, options)
        return np.asarray(target)
    height, width = image.shape[:2]
    source = ImageData(width, height, PixelType.U8x3, image.tobytes())
    result = ImageData(size[1], size[0], PixelType.U8x3)
    Resizer().resize(source, result, options)
    return np.frombuffer(result.get_buffer(), "uint8").reshape(*size, 3)
