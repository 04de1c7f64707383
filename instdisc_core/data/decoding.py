"""From an image file, a Pillow image or an array to pixels of one size."""

import io
from typing import TYPE_CHECKING

import numpy as np

from instdisc_core.data.fast_images import fitted, jpeg_pixels
from instdisc_core.data.reading import reason

if TYPE_CHECKING:
    import PIL.Image

SUFFIXES = {".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
SUFFIXES |= {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
# Pillow's names of their formats. Others are never opened: EPS, for example, starts Ghostscript.
# TGA is last because its files have no mark that identifies them.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA")
ORIENTATION = 0x0112  # of EXIF; from 5 on, width and height are swapped
DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # 16 bits a pixel, kept in up to 32


def decode(
    image: "bytes | np.ndarray | PIL.Image.Image", size: tuple[int, int] | None
) -> np.ndarray:
    """Pixels ``(height, width, 3)``, uint8, of one image.

    A file or a Pillow image is turned upright as its EXIF says. The first frame of an animation is
    taken. Gray, palette and CMYK become RGB; transparent pixels become white; 16 bits become 8. The
    largest central part of the wanted shape is then resized, so that no image is distorted.

    With ``pip install 'instdisc-core[fast-images]'`` a JPEG of 534 x 400 pixels is read
    about twice as fast. Its pixels then differ from Pillow's by at most 1 level of 255, by
    0.2 on average.

    The formats are JPEG, PNG, WebP, TIFF, GIF, BMP, DIB, PPM, JPEG 2000, AVIF and TGA, as far as
    the installed Pillow reads them. A file or a Pillow image may have at most
    ``PIL.Image.MAX_IMAGE_PIXELS`` pixels: above that, Pillow warns of files that are made to fill
    the memory. Set it to read larger images.

    Args:
        image: the bytes of a file, a Pillow image, or an array ``(height, width)`` or ``(height,
            width, channels)`` with 1, 3 or 4 channels, uint8 in 0 to 255 or floats in 0 to 1.
        size: ``(height, width)`` in pixels; None keeps the size of the image.

    Raises:
        ValueError: not an image, a broken one, one of another format, or one with too many pixels.
            The message is the reason alone.

    Example: ``pixels = decode(images[0], (16, 16))``
    """
    found: np.ndarray | PIL.Image.Image
    if isinstance(image, np.ndarray):
        if _is_done(image, size):
            return image
        found = _from_array(image)
    else:
        found = _upright(image, size)
    try:
        if isinstance(found, np.ndarray):
            return found if size in (None, found.shape[:2]) else fitted(found, size)
        if not all(found.size):
            raise ValueError(f"{found.width} x {found.height} pixels, which is none")
        found = _rgb(found)
        if size is None or found.size == size[::-1]:
            return np.asarray(found)
        return fitted(found, size)
    except (MemoryError, OSError) as error:
        raise ValueError(reason(error)) from error


def thumbnail(image: "bytes | np.ndarray | PIL.Image.Image", side: int) -> np.ndarray:
    """Pixels of the whole image, uint8, RGB, its longer side at most ``side``; see ``decode``."""
    from PIL import Image

    found = _from_array(image) if isinstance(image, np.ndarray) else _upright(image, (side, side))
    try:
        small = _rgb(Image.fromarray(found) if isinstance(found, np.ndarray) else found)
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        return np.asarray(small)
    except (MemoryError, OSError) as error:
        raise ValueError(reason(error)) from error


def shape_of(data: bytes) -> tuple[int, int]:
    """Height and width in pixels of an image file, upright as its EXIF says, from its header.

    Raises:
        ValueError: see ``decode``.
    """
    try:
        opened = _opened(data, None)
        width, height = opened.size
        return (width, height) if _orientation(opened) >= 5 else (height, width)
    except Exception as error:  # Pillow's readers fail with exceptions of many types
        raise ValueError(_why_unread(error)) from error


def num_pixels(data: bytes) -> int:
    """How many pixels an image file says it has; none is decoded, as ``shape_of`` does for PNG.

    Raises:
        ValueError: see ``decode``.
    """
    try:
        width, height = _opened(data, None).size
        return width * height
    except Exception as error:  # Pillow's readers fail with exceptions of many types
        raise ValueError(_why_unread(error)) from error


def _upright(
    image: "bytes | PIL.Image.Image", size: tuple[int, int] | None
) -> "np.ndarray | PIL.Image.Image":
    """The pixels of a file or of a Pillow image, read and turned as its EXIF says.

    A JPEG that is upright and was decoded by the fast packages is an array.
    """
    from PIL import ImageOps

    try:
        if not isinstance(image, bytes):
            _require_allowed(image)
            return ImageOps.exif_transpose(image)
        opened = _opened(image, size)
        pixels = jpeg_pixels(image, opened) if _orientation(opened) == 1 else None
        if pixels is not None:
            return pixels
        ImageOps.exif_transpose(opened, in_place=True)
        return opened
    except Exception as error:  # Pillow's readers fail with exceptions of many types
        raise ValueError(_why_unread(error)) from error


def _why_unread(error: Exception) -> str:
    """The reason that Pillow does not read an image."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    return reason(error)


def _opened(data: bytes, size: tuple[int, int] | None) -> "PIL.Image.Image":
    """A Pillow image of the bytes of a file, before any pixel is decoded."""
    from PIL import Image

    Image.init()  # without it, OPEN holds only the most common formats
    known = [name for name in FORMATS if name in Image.OPEN]
    image = Image.open(io.BytesIO(data), formats=known)
    _require_allowed(image)
    if size is not None:  # a JPEG decodes at 1/2, 1/4 or 1/8 where that is enough
        image.draft("RGB", size if _orientation(image) >= 5 else size[::-1])
    return image


def _orientation(image: "PIL.Image.Image") -> int:
    """How the EXIF says that an image is turned; 1 is upright."""
    return image.getexif().get(ORIENTATION, 1)


def _require_allowed(image: object) -> None:
    """Raise unless this is a Pillow image of a format and a size that may be decoded."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise ValueError(
            f"a {type(image).__name__}, not the bytes of a file, an array, or a Pillow image"
        )
    # MPO is Pillow's name of a JPEG with several images; an image made in memory has no format.
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


def _is_done(image: np.ndarray, size: tuple[int, int] | None) -> bool:
    """Whether this array already holds pixels of the wanted size."""
    return image.dtype == np.uint8 and image.shape == (*(size or image.shape[:2]), 3)


def _rgb(image: "PIL.Image.Image") -> "PIL.Image.Image":
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
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(pixels: np.ndarray) -> "PIL.Image.Image":
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
