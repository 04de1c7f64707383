"""Images to read in tests: good files, broken files, and images that show their index."""

import io

import numpy as np
from PIL import Image

COLORS = np.random.default_rng(0).integers(0, 256, (40, 3))


def write(path, color=(200, 100, 50), size=(20, 16), **kwargs):
    """Write an image of one color, and its folder where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(int(c) for c in color)).save(path, **kwargs)


def two_classes(folder):
    """Twelve images of one color each, in two classes: ``a/0.png``, ``b/1.png``, ``a/2.png``."""
    for i in range(12):
        write(folder / "ab"[i % 2] / f"{i}.png", COLORS[i])
    return folder


def truncated(path):
    """Write a JPEG that ends too early."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype("uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def encoded(kind, size=(4, 4), **kwargs):
    """The bytes of a file of one of Pillow's formats."""
    file = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(file, kind, **kwargs)
    return file.getvalue()


def numbered(n, size=2):
    """Images in memory that show their index."""
    images = np.zeros((n, size, size, 3), "uint8")
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) % 256, np.arange(n) // 256
    return images


def shown(images):
    """The indices that ``numbered`` images show."""
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 0, 1].astype(int)
