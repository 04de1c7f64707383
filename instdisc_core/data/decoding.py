"""From the bytes of an image file, of whatever kind, to pixels of one size."""

import io
from pathlib import Path

import numpy as np

SUFFIXES = {".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
SUFFIXES |= {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
ORIENTATION = 0x0112  # of EXIF; from 5 on, width and height are swapped
DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # 16 bits a pixel, kept in up to 32


def decode(image, size):
    """Pixels ``(height, width, 3)``, uint8, of one image.

    What Pillow opens is turned upright as its EXIF says; the first frame of an animation is taken;
    gray, palette and CMYK become RGB; transparency is laid on white; 16 bits become 8. The largest
    central part of the wanted shape is then resized, and no image is distorted.

    Args:
        image: the bytes of a file, a Pillow image, or an array ``(height, width)`` or ``(height,
            width, channels)`` with 1, 3 or 4 channels, uint8 in 0 to 255 or floats in 0 to 1.
        size: ``(height, width)`` in pixels; None keeps an image's own.

    Raises:
        ValueError: what is no image, or a broken one; the message says why.
    """
    from PIL import Image, ImageOps

    if _is_done(image, size):
        return image
    try:
        if isinstance(image, bytes):
            image = Image.open(io.BytesIO(image))
            if size is not None:  # a JPEG decodes at 1/2, 1/4 or 1/8 where that is enough
                lies = image.getexif().get(ORIENTATION, 1) >= 5
                image.draft("RGB", size if lies else size[::-1])
        elif isinstance(image, np.ndarray):
            image = _from_array(image)
        image = _rgb(ImageOps.exif_transpose(image))
        if size is not None and image.size != tuple(size[::-1]):
            image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError("not an image of a kind that Pillow reads") from error
    except Exception as error:  # Pillow's readers fail with exceptions of many types
        raise ValueError(f"{type(error).__name__}: {error}") from error


def read(path, size):
    """The bytes of a file, and its pixels as ``decode`` returns them."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{type(error).__name__}: {error.strerror}") from error
    return data, decode(data, size)


def _is_done(image, size):
    """Whether this is an array of pixels of the wanted size already."""
    is_pixels = isinstance(image, np.ndarray) and image.dtype == np.uint8
    return is_pixels and image.shape == (*(size or image.shape[:2]), 3)


def _rgb(image):
    """A Pillow image of any mode in RGB."""
    from PIL import Image

    if image.mode in DEEP_MODES:
        deep = np.asarray(image).astype("int64")
        return Image.fromarray((np.clip(deep, 0, 65535) >> 8).astype("uint8")).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range the file does not say")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_array(pixels):
    from PIL import Image

    if pixels.dtype.kind == "f":
        lowest, highest = float(pixels.min()), float(pixels.max())
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(
                f"floating-point pixels from {lowest:.3g} to {highest:.3g}, not in [0, 1]"
            )
        pixels = np.round(255 * pixels).astype("uint8")
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels of dtype {pixels.dtype}, neither uint8 nor floating-point")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        raise ValueError(f"pixels of shape {pixels.shape}, not (height, width, channels)")
    return Image.fromarray(pixels)
