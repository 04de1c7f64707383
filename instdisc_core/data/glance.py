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
SIDE = 32  # pixels
MAX_BYTES = 2**28


class Glance(NamedTuple):
    """What a glance at a folder or a source tells.

    Attributes:
        images: number of files with the name of an image.
        side: median of the shorter sides in pixels of some of them; 0 where none of these can be
            read.
        pixels: uint8 ``(up to 512, 32, 32, 3)``, images evenly over the folder, in its order.
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
    some = images.images(range(0, len(images), _every(len(images))))
    return Glance(len(images), height, _stack([decode(image, (SIDE, SIDE)) for image in some]))


def _at_folder(folder: Path) -> Glance:
    """A glance at the files of a folder."""

    def look(name: str) -> tuple[int, np.ndarray] | None:
        try:
            data = contents(folder / name, MAX_BYTES)[0]
            return min(shape_of(data)), decode(data, (SIDE, SIDE))
        except ValueError:
            return None  # ImageFolder says which files are broken, and why

    names = image_files(folder, follow_links=False).names
    with ThreadPoolExecutor(threads(None)) as pool:
        found = [one for one in pool.map(look, names[:: _every(len(names))]) if one]
    side = int(statistics.median(side for side, _ in found)) if found else 0
    return Glance(len(names), side, _stack([pixels for _, pixels in found]))


def _every(count: int) -> int:
    """The step from one image that is looked at to the next."""
    return math.ceil(count / LOOKED_AT)


def _stack(images: list[np.ndarray]) -> np.ndarray:
    """One array of images, of which there may be none."""
    return np.stack(images) if images else np.empty((0, SIDE, SIDE, 3), "uint8")
