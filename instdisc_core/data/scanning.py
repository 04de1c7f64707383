"""Reads all files of a folder once: manifest, pixels, and the files that cannot be read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from instdisc_core.data.decoding import decode
from instdisc_core.data.manifest import Manifest
from instdisc_core.data.names import printable
from instdisc_core.data.reading import contents, digest, status

SLAB = 4096  # files that are submitted to the threads at a time
PROGRESS_FROM = 1000  # with at least so many files, a progress bar is shown
LONGEST_REASON = 200  # characters: the text of Pillow's error may come from the broken file


class Scan(NamedTuple):
    """What was found in the files of a folder.

    Attributes:
        manifest: of all files, with those that cannot be read.
        problems: dict from the name of each file that cannot be read to the reason.
    """

    manifest: Manifest
    problems: dict[str, str]


def scan(
    folder: Path,
    names: Sequence[str],
    size: tuple[int, int] | None,
    pixels: np.ndarray | None,
    known: Manifest | None,
    max_bytes: int,
    workers: int,
    verbose: bool,
) -> Scan:
    """Read the files of a folder.

    Args:
        folder: its path.
        names: of the files.
        size: ``(height, width)`` to decode to, or None to decode nothing.
        pixels: uint8 ``(n, height, width, 3)`` to fill with the decoded images, or None.
        known: the manifest, or None. A file with the size and time that it lists is the same file:
            if nothing is decoded, it is not read.
        max_bytes: the largest size of a file.
        workers: how many threads read.
        verbose: show a progress bar for 1,000 or more files.
    """
    n = len(names)
    sizes, modified, digests = [0] * n, [0] * n, [""] * n
    problems: dict[str, str] = {}

    def look(i: int) -> None:
        path = folder / names[i]
        try:
            if size is None and known is not None:
                found = status(path, max_bytes)
                if (found.st_size, found.st_mtime_ns) == (known.sizes[i], known.modified[i]):
                    sizes[i], modified[i] = known.sizes[i], known.modified[i]
                    digests[i] = known.digests[i]
                    return
            data, found = contents(path, max_bytes)
            sizes[i], modified[i], digests[i] = found.st_size, found.st_mtime_ns, digest(data)
            image = None if size is None else decode(data, size)
            if pixels is not None:
                pixels[i] = image
        except ValueError as error:
            problems[names[i]] = printable(str(error))[:LONGEST_REASON]

    show = int(verbose and n >= PROGRESS_FROM)
    bar = keras.utils.Progbar(n, verbose=show, interval=0.5, unit_name="file")
    with ThreadPoolExecutor(workers, "instdisc-scan") as executor:
        for start in range(0, n, SLAB):  # in parts: a future takes much more memory than a name
            looks = executor.map(look, range(start, min(start + SLAB, n)))
            for done, _ in enumerate(looks, start + 1):
                bar.update(done)
    manifest = Manifest(tuple(names), tuple(sizes), tuple(modified), tuple(digests))
    return Scan(manifest, {name: problems[name] for name in names if name in problems})
