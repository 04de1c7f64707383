"""Files that are made to run code, to fill the memory, or never to end."""

import hashlib
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import h5py
import keras
import numpy as np
from PIL import Image

from benchmarks.faults import loaders
from benchmarks.faults.loaders import ABOUT, STATE
from instdisc_core import recipes
from instdisc_core.checkpoints import CheckpointFolder, seal
from instdisc_core.data import ImageFolder, Manifest
from instdisc_core.recipes.run_folder import claim

PWNED = "pwned"  # the file that the code in these files would make


class Bait:
    """Makes a file when it is unpickled.

    Args:
        folder: for the file.
    """

    def __init__(self, folder: Path):
        self.command = f"touch {folder / PWNED}"

    def __reduce__(self):
        return os.system, (self.command,)


def _digest(data):
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _checkpoint(folder, change):
    """A checkpoint that was changed by someone who knows how its digests are made."""
    loaders._fit(folder, loaders._trained(fit=False), epochs=1, keep=1)
    path, about = CheckpointFolder(folder, 1).newest()
    change(path, about)
    about["state"] = _digest((path / STATE).read_bytes())
    digest = _digest(json.dumps(about, sort_keys=True).encode())
    (path / ABOUT).write_text(json.dumps({**about, "digest": digest}))
    model = loaders._trained(fit=False)
    return lambda: loaders._fit(folder, model, epochs=2, keep=1)


def pickle_in_the_state(folder):
    """``state.npz`` with an array of objects."""
    bait = np.array([Bait(folder)], dtype=object)
    return _checkpoint(folder, lambda path, about: np.savez(path / STATE, **{"metric/0": bait}))


def pickle_for_the_state(folder):
    """``state.npz`` that is a pickle."""
    bait = pickle.dumps(Bait(folder))
    return _checkpoint(folder, lambda path, about: (path / STATE).write_bytes(bait))


def claimed_epoch(folder):
    """A checkpoint of the first epoch that calls itself the hundredth."""
    return _checkpoint(folder, lambda path, about: about.update(epoch=99))


def nested_checkpoint(folder):
    """``checkpoint.json`` that is nested a hundred thousand times."""
    (folder / "epoch-00001-step-0000000").mkdir(parents=True)
    (folder / "epoch-00001-step-0000000" / ABOUT).write_text("[" * 100_000)
    return CheckpointFolder(folder, 1).newest


def nested_recipe(folder):
    """``recipe.json`` likewise."""
    (folder / "recipe.json").write_text("[" * 100_000)
    return lambda: claim(folder, recipes.get("small-cifar10"), 0, loaders._manifest())


def _keras_file(folder, encoder):
    """A ``.keras`` file whose encoder is replaced by another configuration."""
    path = folder / "model.keras"
    loaders._trained().save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["encoder"] = encoder
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)
    return lambda: keras.saving.load_model(path)


def lambda_layer(folder):
    """A ``.keras`` file with Python bytecode."""
    layer = keras.layers.Lambda(lambda x: os.system(f"touch {PWNED}"))
    return _keras_file(folder, keras.saving.serialize_keras_object(layer))


def torch_module(folder):
    """A ``.keras`` file with a pickle of a PyTorch module."""
    module = {"class_name": "__bytes__", "config": {"value": pickle.dumps(Bait(folder)).hex()}}
    return _keras_file(
        folder, _configuration("keras.layers", "TorchModuleWrapper", {"module": module})
    )


def function_of_os(folder):
    """A ``.keras`` file that names ``os.system``."""
    return _keras_file(folder, _configuration("os", "system", {"command": Bait(folder).command}))


def _configuration(module, name, config):
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def external_link(folder):
    """A file of weights that points to another file."""
    path = folder / "model.weights.h5"
    model = loaders._trained()
    keras.saving.save_weights(model, path)
    with h5py.File(path, "r+") as file:
        del file["layers/memory_bank/vars"]
        file["layers/memory_bank/vars"] = h5py.ExternalLink("/etc/passwd", "/")
    seal(path)
    return lambda: model.load_weights(path)


def scaled_rows(folder):
    """A file of weights whose rows are not of length 1."""
    path = folder / "model.weights.h5"
    model = loaders._trained()
    keras.saving.save_weights(model, path)
    with h5py.File(path, "r+") as file:
        file["layers/memory_bank/vars/0"][...] *= 2
    seal(path)
    return lambda: model.load_weights(path)


def bomb(folder):
    """A manifest of a few MB that unpacks to 2 GiB."""
    stream, zeros = zlib.compressobj(9), bytes(2**24)
    first, more = (stream.compress(zeros) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    array = np.frombuffer(first + 127 * more, "uint8")
    return lambda: Manifest.from_array(array)


def _folder(folder, name, make):
    """A folder of images and something that calls itself one."""
    Image.new("RGB", (8, 8)).save(folder / "good.png")
    make(folder / name)
    return lambda: ImageFolder(folder, 8)


def postscript(folder):
    """A PostScript program named ``.jpg``, for which Pillow would start Ghostscript."""
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    return _folder(folder, "x.jpg", lambda path: path.write_text(text))


def pipe(folder):
    """A pipe named ``.jpg``, into which nobody writes."""
    return _folder(folder, "x.jpg", os.mkfifo)


def endless(folder):
    """A link to ``/dev/zero`` named ``.jpg``."""
    return _folder(folder, "x.jpg", lambda path: path.symlink_to("/dev/zero"))


def sparse(folder):
    """A file of 40 GB that takes no place on the disk."""

    def make(path):
        path.touch()
        os.truncate(path, 40 * 2**30)

    return _folder(folder, "x.jpg", make)


def huge_png(folder):
    """A PNG of a few bytes that says it has 2.5 billion pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(bytes(6251))),
        chunk(b"IEND", b""),
    )
    return _folder(
        folder, "x.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    )


HOSTILE = (
    pickle_in_the_state,
    pickle_for_the_state,
    claimed_epoch,
    nested_checkpoint,
    nested_recipe,
    lambda_layer,
    torch_module,
    function_of_os,
    external_link,
    scaled_rows,
    bomb,
    postscript,
    pipe,
    endless,
    sparse,
    huge_png,
)


class Hostile:
    """A hostile file as a loader: whatever it loads is wrong.

    Args:
        folder: for the file.
        attack: one of ``HOSTILE``.
    """

    name = "files made by hand"
    names_files, may_differ, content = False, False, None
    files: ClassVar[dict[str, bytes]] = {}
    targets = ()

    def __init__(self, folder: Path, attack: Callable):
        self._load = attack(folder)

    def load(self, folder: Path) -> object:
        """Read the file."""
        try:
            return self._load() or "loaded"
        finally:
            if (folder / PWNED).exists():
                raise AssertionError("the code in the file ran")
