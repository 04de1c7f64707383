"""How many images a folder holds, how large they are, and what some of them show."""

import math
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from instdisc_core.data.decoding import decode, shape_of
from instdisc_core.data.listing import image_files
from instdisc_core.data.reading import contents
from instdisc_core.data.source import ImageSource, threads
from instdisc_core.validation import require

LOOKED_AT = 512  # images at most
MEASURED = 64  # of these at most
SIDE = 32  # pixels
MAX_BYTES = 2**28
MAX_BYTES_TO_DECODE = 2**23
AT_A_TIME = 32  # images of a source


class Glance(NamedTuple):
    """What a glance at a folder or a source tells.

    Attributes:
        images: number of files with the name of an image.
        side: median of the shorter sides in pixels of some of them; 0 where none of these can be
            read.
        pixels: uint8 ``(up to 512, 32, 32, 3)``, images from all parts of the folder, in its
            order. Files of more than 8 MiB, which may take seconds each, are left out.
    """

    images: int
    side: int
    pixels: np.ndarray


def glance(images: str | os.PathLike | ImageSource) -> Glance:
    """Count the images of a folder or a source, and look at some.

    Raises:
        ValueError: the folder does not exist or holds no images, or a source whose images are not
            square.
    """
    if not isinstance(images, ImageSource):
        return _at_folder(Path(images))
    height, width = images.size
    require(
        height == width,
        f"images of {height} x {width} pixels",
        "square ones",
        "Read them with one number as size, such as size=64.",
    )
    numbers = _spread(len(images))
    parts = np.array_split(numbers, math.ceil(len(numbers) / AT_A_TIME))
    some = (decode(image, (SIDE, SIDE)) for part in parts for image in images.images(part))
    return Glance(len(images), height, _stack(list(some)))


def _at_folder(folder: Path) -> Glance:
    """A glance at the files of a folder."""
    names = image_files(folder, follow_links=False).names
    chosen = [folder / names[i] for i in _spread(len(names))]
    with ThreadPoolExecutor(threads(None)) as pool:
        sides = pool.map(_side, chosen[:: math.ceil(len(chosen) / MEASURED)])
        pixels = pool.map(_pixels, chosen)
    side = int(statistics.median(known)) if (known := [one for one in sides if one]) else 0
    return Glance(len(names), side, _stack([one for one in pixels if one is not None]))


def _side(path: Path) -> int | None:
    """The shorter side of an image file; None where ImageFolder will say that it is broken."""
    try:
        return min(shape_of(contents(path, MAX_BYTES)[0]))
    except ValueError:
        return None


def _pixels(path: Path) -> np.ndarray | None:
    """A small image; None for a file that is broken, or takes long to decode."""
    try:
        return decode(contents(path, MAX_BYTES_TO_DECODE)[0], (SIDE, SIDE))
    except ValueError:
        return None


def _spread(count: int) -> np.ndarray:
    """Numbers of the images to look at, one from each of as many parts; the same in every call.

    They are drawn, as equal steps could meet only every second one of pairs of images.
    """
    ends = np.linspace(0, count, min(count, LOOKED_AT) + 1).astype(int)
    return np.random.default_rng(0).integers(ends[:-1], ends[1:])


def _stack(images: list[np.ndarray]) -> np.ndarray:
    """One array of images, of which there may be none."""
    return np.stack(images) if images else np.empty((0, SIDE, SIDE, 3), "uint8")
