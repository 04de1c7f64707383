"""Which image is instance 1234: the list that a memory bank's rows belong to."""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from instdisc_core.data.manifest_csv import Columns, from_csv, to_csv
from instdisc_core.data.names import ENCODING, NAMED, listed, printable
from instdisc_core.data.packing import pack, unpack
from instdisc_core.data.reading import contents, digest
from instdisc_core.files import replacing
from instdisc_core.validation import OtherImages, require

LONGEST = 2**16  # characters of a name or a reason; a CSV reader takes up to 2**17
TEXT = f"texts of 1 to {LONGEST} characters, none of them NUL, in UTF-8 or from a file name"
DIGEST = re.compile("(?:[0-9a-f]{32})?")


@dataclass(frozen=True)
class Manifest:
    """The images of a data set in the order of their instance indices.

    As a file and as an array it ends with its counts and a digest of its content, so that one
    that was cut or changed is rejected.

    Attributes:
        names: of each image, all different. In a folder it is the path from there, with ``/``
            between the parts.
        sizes: of each image in bytes.
        modified: when a file was last changed, in nanoseconds; 0 for images in memory. It is not
            part of the fingerprint: a copied folder is the same data.
        digests: of each image's bytes, 32 hexadecimal digits, or ``""`` where they are not known.
        skipped: dict from the name of each file or folder that is left out to the reason.

    Raises:
        ValueError: names that are not different texts of 1 to 65536 characters without NUL, sizes
            or times that are not integers, digests of another form, or columns of different
            lengths.

    Example:
    ```python
    manifest = ImageFolder("photos", 64).manifest
    manifest.save("photos.csv")
    print(manifest.names[12])
    ```
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    modified: tuple[int, ...]
    digests: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for column in ("sizes", "modified", "digests"):
            count = len(getattr(self, column))
            require(count == len(self), f"{count} {column} for {len(self)} names", "one for each")
        names = [*self.names, *self.skipped]
        _require_all("names or reasons", [*names, *self.skipped.values()], _is_text, TEXT)
        _require_all("sizes", self.sizes, lambda n: isinstance(n, int) and n >= 0, "integers >= 0")
        _require_all("times", self.modified, lambda n: isinstance(n, int), "integers")
        _require_all("digests", self.digests, _is_digest, "32 hexadecimal digits, or none")
        twice = [name for name, count in Counter(names).items() if count > 1]
        require(
            not twice,
            f"{len(twice)} names that stand for several images: {listed(twice)}",
            "a name of its own for each image",
        )

    def __len__(self) -> int:
        return len(self.names)

    def __hash__(self) -> int:  # the reasons in ``skipped`` cannot be hashed
        return hash(self.fingerprint)

    @classmethod
    def of_pixels(cls, names: tuple[str, ...], images: np.ndarray) -> "Manifest":
        """The manifest of images in memory, uint8 ``(n, height, width, 3)``."""
        n = len(images)
        digests = tuple(digest(np.ascontiguousarray(image).data) for image in images)
        return cls(names, (images[0].nbytes,) * n, (0,) * n, digests)

    @property
    def is_complete(self) -> bool:
        """Whether the digests of all images are known."""
        return all(self.digests)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits of names, sizes and digests in their order.

        Where the manifest is complete, two data sets share it if and only if they are equal.
        """
        lines = hashlib.blake2b(digest_size=16)
        for name, size, content in self._content():  # no name holds NUL: it marks where one ends
            lines.update(f"{name}\0{size}\0{content}\n".encode(*ENCODING))
        return lines.hexdigest()

    def subset(self, indices: Iterable[int], skipped: dict[str, str] | None = None) -> "Manifest":
        """The manifest of some of the images, in the order of these indices.

        Args:
            indices: of the images that stay.
            skipped: the reasons of those that are left out, by name; None is none.
        """
        chosen = list(indices)
        return Manifest(
            tuple(self.names[i] for i in chosen),
            tuple(self.sizes[i] for i in chosen),
            tuple(self.modified[i] for i in chosen),
            tuple(self.digests[i] for i in chosen),
            skipped or {},
        )

    def differences(self, other: "Manifest") -> list[str]:
        """How ``other`` differs from this manifest, one sentence for each kind of difference.

        Both are equal if there is no sentence.
        """
        ours, theirs = (
            {name: (i, *rest) for i, (name, *rest) in enumerate(m._content())}
            for m in (self, other)
        )
        missing = [name for name in ours if name not in theirs]
        added = [name for name in theirs if name not in ours]
        both = [name for name in ours if name in theirs]
        changed = [name for name in both if ours[name][1:] != theirs[name][1:]]
        moved = [name for name in both if ours[name][0] != theirs[name][0]]
        if missing or added:  # then indices have shifted, which tells nothing
            moved = []
        kinds = {"missing": missing, "added": added, "changed": changed, "renumbered": moved}
        return [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds.items() if names]

    def check(self, other: "Manifest", whose: str = "the data set") -> None:
        """Raise unless ``other`` has the same names, contents and order.

        Args:
            other: the Manifest of the data that are used now.
            whose: what ``other`` is, for the message.

        Raises:
            OtherImages: a ValueError, which names the images that differ.
        """
        require(
            self is other or self.fingerprint == other.fingerprint,
            f"{whose} with {len(other)} images that is not the one of the manifest, "
            f"with {len(self)}; {'; '.join(self.differences(other))}",
            "the same images in the same order: each row of a memory bank belongs to one of them",
            "Restore the data, or train a new model, with a new manifest, on the present data.",
            OtherImages,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write it as CSV: index, name, bytes, modified, blake2b; skipped files have no index.

        The last line holds ``end``, the count of images, the count of skipped files, and the
        BLAKE2b digest of all lines above. An existing file is replaced whole or not at all.
        """
        with replacing(path) as part:
            part.write_bytes(self._csv())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Manifest":
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file cannot be read, is not a manifest, or is not as ``save`` left it.
        """
        what = printable(str(path))
        try:
            data, _ = contents(Path(path), sys.maxsize)
        except ValueError as error:
            raise ValueError(
                f"Received: {what}, which cannot be read ({error}). Expected a file that "
                "Manifest.save wrote. Give the path of such a file."
            ) from error
        with _called(what, "Restore it; or delete it, and train a new model on what is there now."):
            return cls(*from_csv(data))

    def to_array(self) -> np.ndarray:
        """The manifest compressed into a uint8 array ``(length,)``, as a checkpoint holds it."""
        return self._packed

    @cached_property
    def _packed(self) -> np.ndarray:  # once: a run may save itself every minute
        return pack(self._csv())

    @classmethod
    def from_array(cls, array: np.ndarray) -> "Manifest":
        """Undo ``to_array``, without unpacking more than 64 times the size of the array.

        Raises:
            ValueError: the array is not as ``to_array`` returned it.
        """
        remedy = "The file that it is from is damaged: take another copy, or another checkpoint."
        with _called("the array of a manifest", remedy):
            return cls(*from_csv(unpack(array)))

    def _csv(self) -> bytes:
        columns = (self.names, self.sizes, self.modified, self.digests)
        return to_csv(Columns(*columns, self.skipped))

    def _content(self) -> Iterator[tuple[str, int, str]]:
        return zip(self.names, self.sizes, self.digests, strict=True)


@contextmanager
def _called(what: str, remedy: str) -> Iterator[None]:
    """Raise errors of the block as those of something damaged, and say what it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"Received: {what}, which is damaged ({error}). Expected it as Manifest wrote it. "
            f"{remedy}"
        ) from error


def _is_text(text: Any) -> bool:
    """Whether this can be written and read back as it is."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST or "\0" in text:
        return False
    try:
        return text.isascii() or text.encode(*ENCODING).decode(*ENCODING) == text
    except UnicodeEncodeError:
        return False


def _is_digest(text: Any) -> bool:
    return isinstance(text, str) and DIGEST.fullmatch(text) is not None


def _require_all(
    column: str, values: Sequence[Any], is_right: Callable[[Any], bool], expected: str
) -> None:
    wrong = [value for value in values if not is_right(value)]
    shown = ", ".join(ascii(value)[:80] for value in wrong[:NAMED])
    require(not wrong, f"{len(wrong)} {column} such as {shown}", expected)
