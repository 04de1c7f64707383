r"""The collections of images that embeddings are judged on, as folders, from their sources.

    python -m benchmarks.sets --to sets --digits \
        --cifar10 CIFAR-10-images --signs Sign-Language-Digits-Dataset/Dataset \
        --trash dataset-resized --grocery GroceryStoreDataset/dataset

Each argument is a folder of a checkout of the source that `docs/experiments.md` names. Photos of
more than 128 pixels are reduced; the others are copied.
"""

import argparse
import csv
import shutil
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.cifar import DIGITS, enlarged_digits

SUFFIXES = ".jpg", ".jpeg", ".png"
SIDE = 128  # pixels, of the longer side at most
QUALITY = 90  # of the JPEG files of photos that are reduced
CIFAR10 = {"cifar3k": 300, "cifar10k": 1000}  # training images of each class
CIFAR10_TEST = 500  # test images of each class


def put(photo, folder, name=None):
    """Copy a photo into a folder, reduced where it is large."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (name or photo.name)
    with Image.open(photo) as image:
        if max(image.size) <= SIDE:
            shutil.copyfile(photo, target)
            return
        image = ImageOps.exif_transpose(image).convert("RGB")
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        is_jpeg = target.suffix.lower() in (".jpg", ".jpeg")  # else a.png may be next to a.jpg
        image.save(target if is_jpeg else folder / f"{target.name}.jpg", quality=QUALITY)


def photos(folder):
    """The photos in a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def digits(target):
    """scikit-learn's digits, as ``DIGIT/NUMBER.png``."""
    images, labels = enlarged_digits()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = target / DIGITS / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def cifar10(source, target):
    """The first images of each class of CIFAR-10, from ``train/CLASS/`` and ``test/CLASS/``."""
    for name, count in CIFAR10.items():
        for part, most in (("train", count), ("test", CIFAR10_TEST)):
            for folder in sorted((source / part).iterdir()):
                for photo in photos(folder)[:most]:
                    put(photo, target / name / part / folder.name)


def by_class(name, source, target):
    """All photos of ``CLASS/``."""
    for photo in photos(source):
        put(photo, target / name / photo.parent.name)


def grocery(source, target):
    """The groceries by coarse class: training and validation photos, and every second test photo.

    A validation photo may have the name of a training photo.
    """
    with (source / "classes.csv").open(newline="") as file:
        coarse = {
            row["Class Name (str)"]: row["Coarse Class Name (str)"] for row in csv.DictReader(file)
        }
    parts = {"train": ("train", 1), "val": ("train", 1), "test": ("test", 2)}
    for part, (into, step) in parts.items():
        for photo in photos(source / part)[::step]:
            place = target / "grocery" / into / coarse[photo.parent.name]
            put(photo, place, f"{part}-{photo.name}")


def main():
    """Write the collections whose sources are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--to", type=Path, required=True, help="folder to write to, a subfolder per collection")
    add("--digits", action="store_true", help="scikit-learn's")
    for name in ("cifar10", "signs", "trash", "grocery"):
        add(f"--{name}", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.digits:
        digits(args.to)
    if args.cifar10:
        cifar10(args.cifar10, args.to)
    if args.signs:
        by_class("signs", args.signs, args.to)
    if args.trash:
        by_class("trash", args.trash, args.to)
    if args.grocery:
        grocery(args.grocery, args.to)


if __name__ == "__main__":
    main()
