"""From the bytes of an image file, of whatever kind, to pixels of one size."""

import io

import numpy as np

from instdisc_core.data.reading import reason

SUFFIXES = {".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
SUFFIXES |= {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
# Pillow's names of their formats. Others are never opened: EPS, for one, starts Ghostscript.
# TGA is last because its files have no mark by which to know them.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA")
ORIENTATION = 0x0112  # of EXIF; from 5 on, width and height are swapped
DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # 16 bits a pixel, kept in up to 32


def decode(image, size: tuple[int, int] | None) -> np.ndarray:
    """Pixels ``(height, width, 3)``, uint8, of one image.

    What Pillow opens is turned upright as its EXIF says; the first frame of an animation is taken;
    gray, palette and CMYK become RGB; transparency is laid on white; 16 bits become 8. The largest
    central part of the wanted shape is then resized, and no image is distorted.

    The formats are those of ``FORMATS``, as far as this Pillow reads them. Files and Pillow images
    have at most ``PIL.Image.MAX_IMAGE_PIXELS`` pixels, where Pillow begins to warn of files that
    are made to fill the memory; set that to read larger ones.

    Args:
        image: the bytes of a file, a Pillow image, or an array ``(height, width)`` or ``(height,
            width, channels)`` with 1, 3 or 4 channels, uint8 in 0 to 255 or floats in 0 to 1.
        size: ``(height, width)`` in pixels; None keeps an image's own.

    Raises:
        ValueError: what is no image, or a broken one, or one of another format or with too many
            pixels; the message is the reason alone.
    """
    from PIL import Image, ImageOps

    if _is_done(image, size):
        return image
    image = _from_array(image) if isinstance(image, np.ndarray) else _upright(image, size)
    if not all(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels, which is none")
    try:
        image = _rgb(image)
        if size is not None and image.size != tuple(size[::-1]):
            image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)
    except (MemoryError, OSError) as error:
        raise ValueError(reason(error)) from error


def _upright(image, size):
    """The pixels of a file or of a Pillow image, read and turned as its EXIF says."""
    from PIL import Image, ImageOps

    try:
        if isinstance(image, bytes):
            image = _opened(image, size)
        else:
            _require_allowed(image)
        return ImageOps.exif_transpose(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's readers fail with exceptions of many types
        raise ValueError(reason(error)) from error


def _opened(data, size):
    """A Pillow image of the bytes of a file, of which no pixel is decoded yet."""
    from PIL import Image

    Image.init()  # or OPEN holds the commonest formats alone
    known = [name for name in FORMATS if name in Image.OPEN]
    image = Image.open(io.BytesIO(data), formats=known)
    _require_allowed(image)
    if size is not None:  # a JPEG decodes at 1/2, 1/4 or 1/8 where that is enough
        transposed = image.getexif().get(ORIENTATION, 1) >= 5
        image.draft("RGB", size if transposed else size[::-1])
    return image


def _require_allowed(image):
    """Raise unless this is a Pillow image of a format and a size that may be decoded."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise ValueError(
            f"a {type(image).__name__}, not the bytes of a file, an array, or a Pillow image"
        )
    # MPO is what Pillow calls a JPEG of several images; what was made in memory has no format.
    if image.format not in (*FORMATS, "MPO", None):
        raise ValueError(
            f"the format {image.format}, not one of {', '.join(FORMATS)}; "
            "image.convert('RGB') decodes it at your own risk"
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{image.width} x {image.height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS={limit}"
        )


def _is_done(image, size):
    """Whether this is an array of pixels of the wanted size already."""
    is_pixels = isinstance(image, np.ndarray) and image.dtype == np.uint8
    return is_pixels and image.shape == (*(size or image.shape[:2]), 3)


def _rgb(image):
    """A Pillow image of any mode in RGB."""
    from PIL import Image

    if image.mode in DEEP_MODES:
        deep = np.asarray(image)
        if deep.itemsize > 2:
            deep = np.clip(deep, 0, 65535)
        return Image.fromarray((deep >> 8).astype("uint8")).convert("RGB")
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
