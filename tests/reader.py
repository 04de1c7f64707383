"""Who runs the Python of the README, the documents and the guides."""

import multiprocessing
import os
import runpy
import sys

import keras
import numpy as np
from PIL import Image

PHOTOS = 12
ONE_EPOCH = ('"small-cifar10"', '"small-cifar10", epochs=1')

# Each script has a process of its own, forked from one that has imported these: imports take longer
# than most scripts. JAX must not be forked.
PROCESSES = multiprocessing.get_context("forkserver")
if keras.backend.backend() == "torch":
    PROCESSES.set_forkserver_preload(
        [
            "keras",
            "matplotlib.pyplot",
            "sklearn.cluster",
            "sklearn.linear_model",
            "sklearn.manifold",
        ]
    )


def as_python_does(folder, name):
    """Run a script in its folder, and write what it prints next to it."""
    os.chdir(folder)
    for stream, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv[:] = [name]
    sys.path.insert(0, str(folder))
    runpy.run_path(name, run_name="__main__")


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
        process = PROCESSES.Process(target=as_python_does, args=(self.folder, name))
        process.start()
        process.join(600)  # seconds: they take up to a minute
        process.kill()
        printed, errors = ((self.folder / f"{name}.{s}").read_text() for s in ("out", "err"))
        assert process.exitcode == 0, f"{name}:\n{errors[-9000:]}"
        return printed

    def names(self, folder):
        """The names of the images in a folder."""
        return [path.name for path in (self.folder / folder).iterdir()]

    def wrote(self, *names):
        """Whether a script left these files."""
        return all((self.folder / name).exists() for name in names)
