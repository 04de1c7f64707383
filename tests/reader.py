"""Who runs the Python of the README, the documents and the guides."""

import subprocess
import sys

import numpy as np
from PIL import Image

PHOTOS = 12
ONE_EPOCH = ('"small-cifar10"', '"small-cifar10", epochs=1')


class Reader:
    """Somebody with a folder of images, who runs scripts in it one after the other."""

    def __init__(self, folder, scripts):
        self.folder, self.scripts = folder, scripts
        rng = np.random.default_rng(0)
        folders = ["photos"] * PHOTOS + ["new"] * 2
        folders += [f"{split}/{c}" for split in ("train", "test") for c in "ab"] * 4
        for number, name in enumerate(folders):
            (folder / name).mkdir(parents=True, exist_ok=True)
            colors = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype="uint8"))
            image = colors.resize((30, 20), Image.Resampling.BICUBIC)  # which can be learned
            image.save(folder / name / f"{number}.jpg")

    def run(self, name, *changes):
        """What a script prints, with parts of its text replaced."""
        text = self.scripts[name]
        for old, new in changes:
            assert old in text, f"{name} no longer says {old}"
            text = text.replace(old, new)
        (self.folder / name).write_text(text)
        done = subprocess.run(
            [sys.executable, name],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,  # seconds: they take up to a minute
        )
        assert done.returncode == 0, f"{name}:\n{done.stderr[-3000:]}"
        return done.stdout

    def names(self, folder):
        """The names of the images in a folder."""
        return [path.name for path in (self.folder / folder).iterdir()]

    def wrote(self, *names):
        """Whether a script left these files."""
        return all((self.folder / name).exists() for name in names)
