"""Small pictures of images as files, each made once."""

import hashlib
import io
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from instdisc_core.data import ImageSource, Manifest
from instdisc_core.files import PART

SIDE = 160  # pixels of the longer side
SUFFIX = ".webp"
OWN = re.compile(r"[0-9a-f]{2}/[0-9a-f]{16}")  # a key
QUALITY, EFFORT = 75, 2  # of WebP: about 4 kB each; more effort takes twice as long for 3 % less
BAR_FROM = 1000  # images


class Thumbnails:
    """A folder of thumbnails, which are named by the contents of their images.

    So copies share one, and an image that changes has a new one.

    Args:
        folder: its path; it is created when the first thumbnail is written.
        manifest: of the images.

    Attributes:
        keys: the name of each image's thumbnail, without folder and suffix.

    Example: ``from instdisc_core.page import Thumbnails; Thumbnails("made", photos.manifest).keys``
    """

    def __init__(self, folder: str | os.PathLike, manifest: Manifest) -> None:
        self.folder = Path(folder)
        self.keys = [
            f"{digest[:2]}/{digest[2:18]}" if digest else _key_of_name(name)
            for name, digest in zip(manifest.names, manifest.digests, strict=True)
        ]

    def path(self, index: int) -> Path:
        """Where the thumbnail of an image is, or will be."""
        return self.folder / (self.keys[index] + SUFFIX)

    def exists(self, index: int) -> bool:
        """Whether it is there."""
        try:
            return self.path(index).stat().st_size > 0
        except OSError:
            return False

    def make(self, index: int, pixels: Callable[[int, int], np.ndarray]) -> Path:
        """Write the thumbnail of an image unless it is there; ``pixels`` of index and side."""
        path = self.path(index)
        if not self.exists(index):
            data = encoded(pixels(index, SIDE))
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{PART}{os.getpid()}-{threading.get_ident()}-{path.name}")
            part.write_bytes(data)  # not flushed to the disk, as ``replacing`` does: it is slow
            os.replace(part, path)
        return path

    def make_all(self, images: ImageSource, verbose: bool = False) -> int:
        """Write those that are missing, and remove those of images that are not there any more.

        Returns:
            How many were written.
        """
        first = {key: index for index, key in reversed(list(enumerate(self.keys)))}
        missing = sorted(index for index in first.values() if not self.exists(index))
        show = int(verbose and len(missing) >= BAR_FROM)
        bar = keras.utils.Progbar(max(len(missing), 1), verbose=show, unit_name="thumbnail")
        made = images.executor.map(lambda index: self.make(index, images.thumbnail), missing)
        for done, _ in enumerate(made, 1):
            bar.update(done)
        for path in self.folder.glob(f"??/*{SUFFIX}"):
            key = path.with_suffix("").relative_to(self.folder).as_posix()
            if OWN.fullmatch(key) and key not in first:
                path.unlink(missing_ok=True)  # another process may do the same
        return len(missing)


def encoded(pixels: np.ndarray) -> bytes:
    """Pixels as the bytes of a WebP file."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "WEBP", quality=QUALITY, method=EFFORT)
    return data.getvalue()


def _key_of_name(name: str) -> str:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=9).hexdigest()
    return f"{digest[:2]}/{digest[2:]}"
