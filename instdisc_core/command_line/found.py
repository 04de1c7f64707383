"""The folder that a training or an index is written to, and that all other commands read."""

import contextlib
import json
import os
import shlex
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instdisc_core.command_line.outputs import check_output, check_outside
from instdisc_core.data import ImageFolder, ImageSource, Manifest, decode
from instdisc_core.data.names import printable
from instdisc_core.data.reading import contents, digest
from instdisc_core.evaluation import layout
from instdisc_core.files import replacing
from instdisc_core.index import ImageIndex
from instdisc_core.index.files import DamagedIndex
from instdisc_core.validation import OtherImages, require

MAX_BYTES = 2**28
MOST = 0.5  # of the photos must be where they are said to have been moved to
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what np.load raises


class Found:
    """A folder with an index, and with what the training that it is from has left.

    Args:
        folder: its path.

    Attributes:
        folder: its path.
        index_folder, model, manifest: paths of its parts.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.index_folder = self.folder / "index"
        self.model = self.folder / "model.keras"
        self.manifest = self.folder / "photos.csv"
        self._record = self.folder / "found.json"

    @property
    def has_index(self) -> bool:
        """Whether there is an index."""
        return (self.index_folder / "index.json").exists()

    def check(self, photos: Path, share: float = 1.0) -> None:
        """Raise if the folder is among the photos, or for the photos of another folder.

        Args:
            photos: their folder.
            share: of the photos must be there, if they were in another folder that is gone.
        """
        require(
            not self.folder.exists() or self.folder.is_dir(),
            f"{printable(str(self.folder))}, which is a file",
            "a folder, which is created",
            "Choose another one with --output.",
        )
        check_outside(self.folder, photos)
        known = self._known()
        mine = str(photos.resolve())
        require(
            known in (None, mine) or not photos.is_dir() or self._moved_to(photos, share),
            f"{printable(str(self.folder))}, which is for the photos in {printable(str(known))}",
            "a folder for these photos",
            "Choose another one with --output.",
        )

    def claim(self, photos: Path) -> None:
        """Write down which photos the folder is for, after ``check``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._record) as part:
            part.write_text(json.dumps({"photos": str(photos.resolve())}) + "\n")

    def check_output(self, output: str) -> None:
        """See ``outputs.check_output``."""
        check_output(output, self.folder, self._known())

    @contextlib.contextmanager
    def advice(self, further: str = "") -> Iterator[None]:
        """In place of what to do about changed photos in Python: what to do in a shell."""
        try:
            yield
        except OtherImages as error:
            received = str(error).partition(". Expected ")[0]
            place, photos = (shlex.quote(str(path)) for path in (self.folder, self._known()))
            raise ValueError(
                f"{received}. Expected the photos that it was made from. For a search among what "
                f"is there now: instdisc index {photos} --output {place}. {further}".rstrip()
            ) from error

    @property
    def num_photos(self) -> int:
        """How many photos are in the index."""
        return int(self._about()["images"])

    def index(self) -> ImageIndex:
        """The index, verified.

        Raises:
            ValueError: there is none.
        """
        place = printable(str(self.folder))
        require(
            self.has_index,
            f"{place}, which holds no index",
            f"a folder that 'instdisc train PHOTOS --output {place}' wrote",
        )
        try:
            return ImageIndex.load(self.index_folder)
        except DamagedIndex as error:
            photos, output = (shlex.quote(str(path)) for path in (self._known(), self.folder))
            model = "" if self.model.exists() else " --model MODEL"
            again = f"'instdisc index {photos} --output {output}{model}' builds it again."
            raise DamagedIndex(f"{_said(error)} {again}") from error

    def whole_index(self) -> ImageIndex | None:
        """The index; None, with a warning, where it is damaged, and None where there is none."""
        if not self.has_index:
            return None
        try:
            return ImageIndex.load(self.index_folder)
        except DamagedIndex as error:
            warnings.warn(f"{_said(error)} It is built again now.", stacklevel=2)
            return None

    def photos_folder(self) -> Path:
        """The folder of the photos in the index."""
        known = self._known()
        if known is None:
            raise ValueError(f"{printable(str(self.folder))} does not say where its photos are.")
        place = shlex.quote(str(self.folder))
        require(
            Path(known).is_dir(),
            f"{printable(known)}, which is no folder any more",
            "the photos of the index",
            f"If they were moved: instdisc index NEW_FOLDER --output {place}.",
        )
        return Path(known)

    def photos(self, index: ImageIndex) -> ImageFolder:
        """The photos of the index in its order; raise where they have changed."""
        manifest = self.index_folder / self._about()["manifest"]["file"]
        size = self.size(index)
        with self.advice():
            return ImageFolder(self.photos_folder(), size, manifest=manifest, verbose=False)

    def positions(self, index: ImageIndex) -> np.ndarray:
        """Where a map shows each photo, ``(n, 2)``; computed once."""
        path, rows = (
            self.folder / "map.npz",
            digest(np.ascontiguousarray(index.rows).data.cast("B")),
        )
        with contextlib.suppress(*DAMAGED), np.load(path) as stored:
            if str(stored["rows"]) == rows and stored["positions"].shape == (len(index), 2):
                return stored["positions"]
        positions = layout(index.rows)
        with contextlib.suppress(OSError), replacing(path) as part:  # a folder may be read-only
            np.savez(part, positions=positions, rows=rows)
        return positions

    def size(self, index: ImageIndex) -> tuple[int, int]:
        """Height and width of the images that the index embeds."""
        if index.size is None:
            raise ValueError(
                f"{printable(str(self.folder))} holds embeddings without their images' size."
            )
        return index.size

    def queries(self, paths: Sequence[str], index: ImageIndex) -> ImageSource:
        """Image files as a source, each once.

        One below the photos' folder has the name that it has there, any other its absolute path.
        """
        names, sizes, digests, pixels = [], [], [], []
        known = self._known()
        files = (Path(path) for path in paths)  # a link is a photo of its own
        for path in dict.fromkeys(path.parent.resolve() / path.name for path in files):
            try:
                data, status = contents(path, MAX_BYTES)
                pixels.append(decode(data, self.size(index)))
            except ValueError as error:
                raise ValueError(f"{printable(str(path))} is not an image: {error}") from error
            inside = known is not None and path.is_relative_to(known)
            names.append(path.relative_to(str(known)).as_posix() if inside else str(path))
            sizes.append(status.st_size)
            digests.append(digest(data))
        manifest = Manifest(tuple(names), tuple(sizes), (0,) * len(names), tuple(digests))
        return ImageSource(manifest, self.size(index), pixels=np.stack(pixels))

    def _about(self) -> dict[str, Any]:
        """What the index says of its files."""
        return json.loads((self.index_folder / "index.json").read_bytes())

    def _moved_to(self, photos: Path, share: float) -> bool:
        """Whether the photos were in another folder, which is gone, and this share is here."""
        known, path = self._known(), self.manifest
        if self.has_index:  # which may have left out what the training had
            with contextlib.suppress(*DAMAGED):
                path = self.index_folder / self._about()["manifest"]["file"]
        if known is None or Path(known).exists() or not path.exists():
            return False
        manifest = Manifest.load(path)
        here = [
            (photos / name).is_file() and (photos / name).stat().st_size == size
            for name, size in zip(manifest.names, manifest.sizes, strict=True)
        ]
        return sum(here) >= share * len(here)

    def _known(self) -> str | None:
        """The folder of the photos, or None where it is not written down."""
        try:
            return str(json.loads(self._record.read_bytes())["photos"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _said(error: DamagedIndex) -> str:
    """What an error says, without what to do in Python."""
    return str(error).partition(" Take another copy")[0]


def read_photos(
    folder: Path, size: int | tuple[int, int], found: Found | None = None
) -> ImageFolder:
    """The images of a folder, copies too; in the order of a manifest where there is one."""
    known = found.manifest if found is not None and found.manifest.exists() else None
    return ImageFolder(folder, size, "skip", "keep", manifest=known)
