"""How many images of each collection a linear classifier tells from their mirror images.

    python -m benchmarks.handedness --sets sets/digits sets/signs sets/trash

`recipes.for_images` mirrors no images of which it tells many. A set is a folder as in
`benchmarks.folders`; where it has train/ and test/, the training images are looked at. The last
column is of a few of its images, each of them eight times in a row, as in a burst of photos.
"""

from pathlib import Path

import numpy as np

from benchmarks import harness
from instdisc_core.data.glance import glance
from instdisc_core.recipes.handedness import told_from_mirror

COPIES = 8


def measured(folder):
    """The shares that are told, of the images and of bursts."""
    train = folder / "train"
    images = glance(train if train.is_dir() else folder).pixels
    bursts = np.repeat(images[::COPIES], COPIES, axis=0)
    shares = {"told": told_from_mirror(images), "told_of_bursts": told_from_mirror(bursts)}
    return {"images": len(images), **shares}


def main():
    """Measure all sets, print the table and store the result."""
    parser = harness.parser(__doc__)
    parser.add_argument("--sets", nargs="+", type=Path, required=True, help="folders")
    args = parser.parse_args()

    found = {folder.name: measured(folder) for folder in args.sets}
    header = ("set", "images", "told", "told_of_bursts")
    harness.table(header, [(name, *one.values()) for name, one in found.items()])
    harness.write("handedness", {"sets": found})


if __name__ == "__main__":
    main()
