"""An index as a folder of files: rows, manifest and encoder, each with its digest."""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from instdisc_core.checkpoints import FolderLock
from instdisc_core.checkpoints.record import read_record, write_record
from instdisc_core.checkpoints.seal import file_digest
from instdisc_core.data import Manifest
from instdisc_core.data.names import printable
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.files import remove_parts, replacing
from instdisc_core.index.embedder import embedder_of, weights_digest
from instdisc_core.persistent_model import pickled_modules
from instdisc_core.validation import require

ABOUT = "index.json"
FORMAT = 1
NAME = re.compile(r"(?:rows|manifest|encoder)-(\d+)\.(?:safetensors|csv|keras)")


class DamagedIndex(ValueError):
    """Files of an index are missing, or are not as they were written."""


class Stored(NamedTuple):
    """What a folder holds; see the attributes of ``ImageIndex``."""

    rows: np.ndarray
    manifest: Manifest
    model: EmbeddingModel | None
    size: tuple[int, int] | None
    mirror: bool
    weights: str | None


def write(folder: str | os.PathLike, index: Stored) -> None:
    """Write an index, or replace the one that is there.

    The files have names of their own each time, and ``index.json`` says which belong together. It
    is replaced last and at once, and then the old files are removed.
    """
    folder = Path(folder)
    with FolderLock(folder):
        remove_parts(folder)
        numbers = [int(m[1]) for path in folder.iterdir() if (m := NAME.fullmatch(path.name))]
        version = max(numbers, default=0) + 1
        fills: dict[str, Callable[[Path], Any]] = {
            f"rows-{version}.safetensors": lambda path: _save_rows(path, index.rows),
            f"manifest-{version}.csv": index.manifest.save,
        }
        if index.model is not None and not _would_be_pickle(index.model):
            fills[f"encoder-{version}.keras"] = index.model.save
        about: dict[str, Any] = {"format": FORMAT, "images": len(index.rows)}
        about |= {"embedding_dim": index.rows.shape[1], "size": index.size, "mirror": index.mirror}
        about["weights"] = index.weights
        for name, fill in fills.items():
            fill(folder / name)
            about[name.partition("-")[0]] = {"file": name, "digest": file_digest(folder / name)}
        with replacing(folder / ABOUT) as part:
            write_record(part, about)
        for path in folder.iterdir():
            if NAME.fullmatch(path.name) and path.name not in fills:
                path.unlink()


def read(folder: str | os.PathLike, model: EmbeddingModel | None = None) -> Stored:
    """Read what ``write`` wrote, after every file is verified; take ``model`` for the encoder.

    Raises:
        DamagedIndex: a ValueError; the index is not as it was written.
        ValueError: there is no index, or another version wrote it; or the weights of ``model`` are
            not those that the rows are from.
    """
    folder = Path(folder)
    place = printable(str(folder))
    require(
        (folder / ABOUT).exists(),
        f"{place}, which holds no {ABOUT}",
        "a folder that ImageIndex.save wrote",
    )
    stored, encoder = _verified_files(folder)
    if model is not None:
        model = embedder_of(model, stored.size)
        require(
            stored.weights in (None, weights_digest(model)),
            f"a model, and {place}, whose rows are from other weights",
            "the model that they are from",
            "Build a new index with ImageIndex.from_model.",
        )
    elif encoder is not None:
        model = load_encoder(encoder)
    return stored._replace(model=model)


def _verified_files(folder: Path) -> tuple[Stored, Path | None]:
    """What ``folder`` holds but for the model, and the path of its encoder, if there is one.

    It reads again if another process has replaced the files meanwhile.
    """
    before = (folder / ABOUT).read_bytes()
    try:
        return _files(folder)
    except DamagedIndex:
        if (folder / ABOUT).read_bytes() == before:
            raise
        return _files(folder)


def _files(folder: Path) -> tuple[Stored, Path | None]:
    from safetensors.numpy import load_file

    place = printable(str(folder))
    try:
        about = read_record(folder / ABOUT)
        if about["format"] == FORMAT:
            rows = load_file(_verified(folder, about["rows"]))["rows"]
            manifest = Manifest.load(_verified(folder, about["manifest"]))
            encoder = _verified(folder, about["encoder"]) if "encoder" in about else None
            size = None if about["size"] is None else tuple(about["size"])
            rest = size, bool(about["mirror"]), about.get("weights")
            return Stored(rows, manifest, None, *rest), encoder
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise DamagedIndex(
            f"Received: {place}, an index that is damaged ({error}). Expected the files that "
            "ImageIndex.save wrote. Take another copy, or build the index again."
        ) from error
    raise ValueError(
        f"Received: {place}, an index of format {about['format']}. Expected format {FORMAT}. "
        "Another version of instdisc_core wrote it: use that one."
    )


def load_encoder(path: str | os.PathLike) -> Any:
    """The model in a ``.keras`` file.

    Raises:
        ValueError: it has a class that is not registered with Keras; or it is damaged.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except TypeError as error:
        cause = str(error).rpartition("Exception encountered: ")[2].partition(". ")[0]
        raise ValueError(
            f"Received: {printable(str(path))}, which Keras cannot load ({cause}). "
            "Expected a model of registered classes. Register them with "
            "keras.saving.register_keras_serializable, and load it in Python after their import."
        ) from error


def _save_rows(path: Path, rows: np.ndarray) -> None:
    from safetensors.numpy import save_file

    with replacing(path) as part:
        save_file({"rows": np.ascontiguousarray(rows)}, part)


def _would_be_pickle(model: EmbeddingModel) -> bool:
    """Whether a file of this model would hold a pickle; warns that it is left out."""
    modules = pickled_modules(model)
    if modules:
        warnings.warn(
            f"{', '.join(modules)}: a torch.nn.Module is saved as a pickle, so the encoder is left "
            "out. ImageIndex.load(folder, model=...) takes it from elsewhere.",
            stacklevel=4,
        )
    return bool(modules)


def _verified(folder: Path, entry: dict[str, str]) -> Path:
    """The path of a file whose digest is right."""
    name = entry["file"]
    require(NAME.fullmatch(name) is not None, f"the file name {printable(name)!r}", "its own")
    require(file_digest(folder / name) == entry["digest"], f"{name}, which was changed", "it whole")
    return folder / name
