"""How many photographs the loader reads per second, and whether memory stays constant.

    KERAS_BACKEND=torch python -m benchmarks.loader --names 1281167

Writes JPEG files of 500 x 375 pixels, links them under as many names as ImageNet has images, lists
that folder, and reads part of an epoch at 256 x 256 pixels. Linked files stay in the system's
cache, so the disk's speed is not measured. Then ``decode`` and Pillow alone take turns on some of
the files, in one thread; the time is that of the processor.
"""

import io
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageOps

from benchmarks import harness
from instdisc_core.data import ImageFolder, decode

MIB = 2**20
DECODED = 100  # files whose decoding is timed


def by_pillow(data, size):
    """The pixels of a JPEG as Pillow alone decodes and resizes them."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", size)
    fitted = ImageOps.fit(ImageOps.exif_transpose(image), size, Image.Resampling.BILINEAR)
    return np.asarray(fitted)


def decoding(files, size, rounds=5):
    """Images per second of processor time, and the largest difference of their pixels."""
    candidates = {"decode": decode, "Pillow alone": by_pillow}
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.process_time()
            for data in files:
                run(data, size)
            seconds[name].append(time.process_time() - start)
    found = zip(*(map(partial(run, size=size), files) for run in candidates.values()), strict=True)
    return {
        "images_per_second": {name: len(files) / median(s) for name, s in seconds.items()},
        "largest_difference": max(int(np.abs(a - b.astype(int)).max()) for a, b in found),
    }


def write_photographs(folder, count, seed=0):
    """JPEG files that compress as photographs do: smooth shapes with some noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype("uint8"))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), "int16")
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype("uint8")
        Image.fromarray(noisy).save(folder / f"{i}.jpg", quality=90)


def link(originals, folder, count, per_class=1300):
    """Link ``count`` names to the same files, in one folder per class."""
    files = sorted(originals.iterdir())
    for i in range(count):
        place = folder / f"n{i // per_class:08d}"
        if i % per_class == 0:
            place.mkdir(parents=True)
        os.link(files[i % len(files)], place / f"{i:07d}.jpg")


def main():
    """Make the files, measure, write."""
    parser = harness.parser(__doc__, batch_size=256)
    add = parser.add_argument
    add("--names", type=int, default=100_000, help="ImageNet has 1,281,167")
    add("--files", type=int, default=500, help="different files that the names link to")
    add("--size", type=int, default=256)
    add("--read", type=int, default=20_000, help="number of images to read")
    add("--workers", type=int, default=harness.cores())
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_photographs(folder / "originals", args.files)
        link(folder / "originals", folder / "images", args.names)
        settings = {"duplicates": "keep", "cache": False, "workers": args.workers}
        manifest = folder / "manifest.csv"

        def read():
            return ImageFolder(folder / "images", args.size, manifest=manifest, **settings)

        listing, _ = harness.timed(read)
        checking, source = harness.timed(read)  # now there is a manifest
        batches = source.batches(args.batch_size, seed=0)
        resident, seconds = [], []
        for step in range(min(len(batches), args.read // args.batch_size)):
            seconds.append(harness.timed(partial(batches.__getitem__, step))[0])
            resident.append(harness.resident_bytes())
        files = [p.read_bytes() for p in sorted((folder / "originals").iterdir())[:DECODED]]
        decoded = decoding(files, (args.size, args.size))
    warm = len(seconds) // 10
    rate = args.batch_size * len(seconds[warm:]) / sum(seconds[warm:])
    results = {
        "settings": vars(args),
        "listing_seconds": listing,
        "checking_seconds": checking,
        "images_per_second": rate,
        "images_per_second_and_worker": rate / args.workers,
        "resident_bytes_after_a_tenth": resident[warm],
        "resident_bytes_at_the_end": resident[-1],
        "decoding": decoded,
    }
    harness.table(
        ("names", "listed s", "checked s", "images/s", "per worker", "memory grew"),
        [
            (
                f"{args.names:,}",
                f"{listing:.0f}",
                f"{checking:.0f}",
                f"{rate:.0f}",
                f"{rate / args.workers:.0f}",
                f"{(resident[-1] - resident[warm]) / MIB:.1f} MiB",
            )
        ],
    )
    harness.table(
        ("one thread", "images/s"),
        [(name, f"{rate:.0f}") for name, rate in decoded["images_per_second"].items()],
    )
    harness.write("loader", results)


if __name__ == "__main__":
    main()
