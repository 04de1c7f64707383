"""What decides whether `recipes.for_images` mirrors images and changes their colors.

    python -m benchmarks.glance --sets sets/digits sets/signs sets/trash

A set is a folder as in `benchmarks.folders`; where it has train/ and test/, the training images are
looked at, in equal steps. First, how many images a linear classifier tells from their mirror
images: of the images as they are; each of them four times with a little noise, as in bursts of
photos; with a mark in a corner; and with more light on the right than on the left, by 15 %. Then
the share of the variance of color that is between images, and how many times as often as by chance
images of like colors have like shapes.
"""

import math
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.folders import SIDE, read
from instdisc_core.recipes import color_agreement, color_variation, told_from_mirror

LOOKED_AT = 512  # images at most
COPIES, NOISE = 4, 6  # of a burst; its noise in levels of 255
MARK = 2, 6  # height and width of a white mark, of 32 pixels
LIGHT = 0.15  # how much more there is at one side than in the middle


def bursts(images):
    """A fourth of the images, each of them four times, in any order."""
    rng = np.random.default_rng(0)
    some = np.repeat(images[::COPIES], COPIES, axis=0)
    noisy = some + rng.integers(-NOISE, NOISE + 1, some.shape)
    return rng.permutation(np.clip(noisy, 0, 255))


def marked(images):
    """Images with a white mark near the lower right corner."""
    found, (height, width) = images.copy(), MARK
    found[:, -height - 1 : -1, -width - 1 : -1] = 255
    return found


def lit(images):
    """Images with light from the right."""
    factor = 1 + np.linspace(-LIGHT, LIGHT, images.shape[2])
    return np.clip(images * factor[:, None], 0, 255)


WAYS = {"told": np.asarray, "of bursts": bursts, "with a mark": marked, "lit from the right": lit}


def measured(folder):
    """The shares that are told, and what the colors say."""
    train = folder / "train"
    (source,) = read([train if train.is_dir() else folder], SIDE)
    images = source.images(range(0, len(source), math.ceil(len(source) / LOOKED_AT)))
    return {
        "images": len(images),
        "sides": {name: told_from_mirror(way(images)) for name, way in WAYS.items()},
        "colors": {
            "between images": color_variation(images),
            "with shapes": color_agreement(images),
        },
    }


def main():
    """Measure all sets, print the table and store the result."""
    parser = harness.parser(__doc__)
    parser.add_argument("--sets", nargs="+", type=Path, required=True, help="folders")
    args = parser.parse_args()

    found = {folder.name: measured(folder) for folder in args.sets}
    for kind in ("sides", "colors"):
        rows = [
            (n, one["images"], *(f"{x:.3g}" for x in one[kind].values()))
            for n, one in found.items()
        ]
        harness.table(("set", "images", *next(iter(found.values()))[kind]), rows)
    harness.write("glance", {"sets": found})


if __name__ == "__main__":
    main()
