"""How many images a folder holds, and how large they are, from some of its files."""

import math
import statistics
from pathlib import Path
from typing import NamedTuple

from instdisc_core.data.decoding import shape_of
from instdisc_core.data.listing import image_files
from instdisc_core.data.reading import contents

LOOKED_AT = 64  # files at most, which are read but not decoded
MAX_BYTES = 2**28


class NativeSize(NamedTuple):
    """What a glance at a folder tells.

    Attributes:
        images: number of files with the name of an image.
        side: median of the shorter sides in pixels of some of them, evenly over the folder; 0 where
            none of these can be read.
    """

    images: int
    side: int


def native_size(folder: Path) -> NativeSize:
    """Count the images of a folder, and read the sizes of some.

    Raises:
        ValueError: the folder does not exist or holds no images.
    """
    names = image_files(folder, follow_links=False).names
    sides = []
    for name in names[:: math.ceil(len(names) / LOOKED_AT)]:
        try:
            sides.append(min(shape_of(contents(folder / name, MAX_BYTES)[0])))
        except ValueError:
            continue  # ImageFolder says which files are broken, and why
    return NativeSize(len(names), int(statistics.median(sides)) if sides else 0)
