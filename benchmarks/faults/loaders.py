"""Every way by which files are read, with undamaged files to begin with."""

import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from benchmarks.faults.judge import Loader
from benchmarks.faults.worker import BATCH_SIZE, STEPS, build, digest, digests, images
from instdisc_core import recipes
from instdisc_core.callbacks import LogFile
from instdisc_core.checkpoints import CheckpointFolder, Checkpoints
from instdisc_core.data import ImageFolder, Manifest, decode
from instdisc_core.recipes.run_folder import claim

SIZE = 8
ABOUT, STATE, WEIGHTS = "checkpoint.json", "state.npz", "model.weights.h5"  # of a checkpoint
FORMATS = {
    "JPEG": {"quality": 80},
    "PNG": {},
    "GIF": {"save_all": True},
    "BMP": {},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"lossless": True},
}


class _Base:
    """What most loaders share."""

    names_files, may_differ = True, False
    files: dict[str, bytes]

    @property
    def targets(self) -> tuple[str, ...]:
        """All files."""
        return tuple(self.files)

    def _keep(self, folder):
        """Take the files in a folder for the undamaged ones."""
        paths = [p for p in folder.rglob("*") if p.is_file()]
        self.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
        self.content = self.load(folder)


class Weights(_Base):
    """``model.load_weights`` of a ``.weights.h5`` or ``.keras`` file."""

    def __init__(self, folder: Path, suffix: str):
        self.name, self._file = f"`load_weights`, `{suffix}`", f"model{suffix}"
        trained, self._model = _trained(), _trained(fit=False)
        (trained.save_weights if suffix == ".weights.h5" else trained.save)(folder / self._file)
        self._start = [np.zeros(v.shape, v.dtype) for v in _variables(self._model)]
        self._keep(folder)

    def load(self, folder):
        """Into a model of zeros, which an error must leave as it was."""
        for variable, value in zip(_variables(self._model), self._start, strict=True):
            variable.assign(value)
        self._model.manifest = None
        before = _state(self._model)
        try:
            self._model.load_weights(folder / self._file)
        except Exception as error:
            if _state(self._model) != before:
                raise AssertionError("the model was changed") from error
            raise
        return _state(self._model)


class KerasFile(_Base):
    """``keras.saving.load_model``."""

    name, names_files = "`load_model`, `.keras`", False

    def __init__(self, folder: Path):
        _trained().save(folder / "model.keras")
        self._keep(folder)

    def load(self, folder):
        """All variables, the settings, and the manifest."""
        keras.backend.clear_session()  # or names count on, and differ
        model = keras.saving.load_model(folder / "model.keras")
        return _state(model), json.dumps(model.get_config(), sort_keys=True)


class CheckpointFiles(_Base):
    """A folder with one checkpoint, as a start looks at it."""

    name = "checkpoints, the newest"

    def __init__(self, folder: Path):
        _fit(folder, _trained(fit=False), epochs=1, keep=1)
        self._keep(folder)

    @property
    def targets(self):
        """The three files of the checkpoint."""
        return tuple(name for name in self.files if name.endswith((ABOUT, STATE, WEIGHTS)))

    def load(self, folder):
        """What it says, and the digests of its files."""
        path, about = CheckpointFolder(folder, 1).newest()
        return about, [
            digest(np.frombuffer((path / f).read_bytes(), "uint8")) for f in (STATE, WEIGHTS)
        ]


class Resumed(CheckpointFiles):
    """A folder with two checkpoints, of which the newest is damaged, and training from there."""

    name = "checkpoints, resumed"

    def __init__(self, folder: Path):
        _fit(folder, _trained(fit=False), epochs=1, keep=2)
        self._keep(folder)

    @property
    def targets(self):
        """The three files of the newer checkpoint."""
        newest = max(name.partition("/")[0] for name in self.files if name.startswith("epoch"))
        return tuple(name for name in super().targets if name.startswith(newest))

    def load(self, folder):
        """The state of the trained model."""
        keras.backend.clear_session()
        model = _trained(fit=False)
        _fit(folder, model, epochs=2, keep=2)
        return _state(model)


class ManifestFile(_Base):
    """``Manifest.load``."""

    name = "`Manifest.load`"

    def __init__(self, folder: Path):
        _manifest().save(folder / "manifest.csv")
        self._keep(folder)

    def load(self, folder):
        """The manifest."""
        return Manifest.load(folder / "manifest.csv")


class ManifestArray(_Base):
    """``Manifest.from_array``, as a model's file holds it."""

    name, names_files = "`Manifest.from_array`", False

    def __init__(self, folder: Path):
        (folder / "manifest").write_bytes(_manifest().to_array().tobytes())
        self._keep(folder)

    def load(self, folder):
        """The manifest."""
        return Manifest.from_array(np.frombuffer((folder / "manifest").read_bytes(), "uint8"))


class RecipeFile(_Base):
    """``recipe.json``, by which a run knows its own folder."""

    name = "`recipe.json`"

    def __init__(self, folder: Path):
        self._recipe, self._manifest = recipes.get("small-cifar10"), _manifest()
        self._claim(folder)
        self._keep(folder)

    def load(self, folder):
        """What the file says that was accepted."""
        self._claim(folder)
        said = json.loads((folder / "recipe.json").read_bytes())
        return {key: said[key] for key in ("recipe", "seed", "data")}

    def _claim(self, folder):
        claim(folder, self._recipe, 0, self._manifest)


class Log(_Base):
    """``log.csv`` of a run that continues, whose rows its checkpoint has too."""

    name = "`log.csv`, resumed"

    def __init__(self, folder: Path):
        self._model = _trained(fit=False)
        self._train(folder, 2)
        self._keep(folder)

    @property
    def targets(self):
        """The log."""
        return ("log.csv",)

    def load(self, folder):
        """The file after the last epoch."""
        self._train(folder, 3)
        return (folder / "log.csv").read_bytes()

    def _train(self, folder, epochs):
        checkpoints = folder / "checkpoints"
        log = LogFile(folder / "log.csv")
        _fit(checkpoints, self._model, epochs, keep=1, callbacks=[log])


class Decoded(_Base):
    """``decode``: pixels of an image file without a manifest."""

    names_files, may_differ = False, True

    def __init__(self, folder: Path, kind: str):
        self.name, self._file = f"`decode`, {kind}", f"image.{kind.lower()}"
        (folder / self._file).write_bytes(_image(kind))
        self._keep(folder)

    def load(self, folder):
        """The pixels."""
        pixels = decode((folder / self._file).read_bytes(), (SIZE, SIZE))
        if pixels.shape != (SIZE, SIZE, 3) or pixels.dtype != np.uint8:
            raise AssertionError(f"pixels of shape {pixels.shape} and dtype {pixels.dtype}")
        return pixels.tobytes()


class Folder(_Base):
    """``ImageFolder`` with a manifest."""

    name = "`ImageFolder` with a manifest"

    def __init__(self, folder: Path):
        for kind in FORMATS:
            (folder / f"{kind.lower()}.{kind.lower()}").write_bytes(_image(kind))
        self.load(folder)
        self._keep(folder)

    def load(self, folder):
        """Digests and pixels."""
        source = ImageFolder(folder, SIZE, manifest=folder / "manifest.csv")
        return source.manifest.fingerprint, source.images().tobytes()


# How many files each loader gets, and how to make it.
LOADERS = {
    "weights": (250, lambda folder: Weights(folder, ".weights.h5")),
    "keras": (250, KerasFile),
    "keras weights": (100, lambda folder: Weights(folder, ".keras")),
    "checkpoints": (300, CheckpointFiles),
    "resumed": (10, Resumed),
    "manifest": (250, ManifestFile),
    "manifest array": (250, ManifestArray),
    "recipe": (200, RecipeFile),
    "log": (20, Log),
    "folder": (250, Folder),
    **{kind: (50, lambda folder, kind=kind: Decoded(folder, kind)) for kind in FORMATS},
}


@contextmanager
def loader(key: str) -> Iterator[Loader]:
    """One of ``LOADERS``, which has read undamaged files once."""
    with tempfile.TemporaryDirectory() as folder:
        yield LOADERS[key][1](Path(folder))


def _trained(fit=True):
    """A model with a bank, a manifest, and an optimizer that has made steps."""
    model = build(compiled=False)  # files are the same
    source = images(STEPS * BATCH_SIZE, SIZE)
    model.build((None, SIZE, SIZE, 3))
    model.optimizer.build(model.trainable_variables)
    if fit:
        model.fit(source.batches(BATCH_SIZE, seed=5), verbose=0)
    return model


def _fit(folder, model, epochs, keep, callbacks=()):
    source = images(STEPS * BATCH_SIZE, SIZE)
    callbacks = [*callbacks, Checkpoints(folder, save_freq=3, keep=keep)]
    model.fit(source.batches(BATCH_SIZE, seed=5), epochs=epochs, callbacks=callbacks, verbose=0)


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _state(model):
    """Digests of all variables, and the manifest's."""
    return list(digests(model).values()), model.manifest and model.manifest.fingerprint


def _manifest():
    """Of 40 images, with names of all kinds, and three files that were skipped."""
    n = 40
    names = tuple(f'2019/ä, "{i}".jpg' if i % 3 else f"{i}.png" for i in range(n))
    hexes = tuple(digest(np.asarray(i)) for i in range(n))
    skipped = {f"broken {i}.jpg": "OSError: cut, at the end" for i in range(3)}
    return Manifest(names, tuple(range(1000, 1000 + n)), tuple(range(n)), hexes, skipped)


def _image(kind):
    """The bytes of an image file of smooth shapes."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype("uint8")
    image = Image.fromarray(pixels).resize((32, 24), Image.Resampling.BICUBIC)
    more = {"append_images": [image.rotate(180)]} if kind == "GIF" else {}
    file = io.BytesIO()
    image.save(file, kind, **FORMATS[kind], **more)
    return file.getvalue()
