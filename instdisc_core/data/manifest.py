"""Which image is instance 1234: the list that a memory bank's rows belong to."""

import csv
import hashlib
import io
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from instdisc_core.validation import require

COLUMNS = ("index", "name", "bytes", "modified", "blake2b")
ENCODING = ("utf-8", "surrogateescape")  # a name need not be valid UTF-8
NAMED = 5  # how many files an error names before it counts the others


@dataclass(frozen=True)
class Manifest:
    """The images of a data set in the order of their instance indices.

    Attributes:
        names: of each image; in a folder, its path from there with ``/`` between the parts.
        sizes: in bytes.
        modified: when a file last changed, in nanoseconds; 0 where that means nothing. No part of
            the fingerprint: a copied folder is the same data.
        digests: of each image's bytes, 32 hexadecimal digits, or ``""`` where they are not known.
        skipped: dict from the name of each file that is not among them to the reason.

    Example:
    ```python
    manifest = ImageFolder("photos", 64).manifest
    manifest.save("photos.csv")
    print(manifest.names[1234])
    ```
    """

    names: tuple
    sizes: tuple
    modified: tuple
    digests: tuple
    skipped: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.names)

    @classmethod
    def of_pixels(cls, names, images):
        """The manifest of images ``(n, height, width, 3)`` in memory."""
        n = len(images)
        digests = tuple(digest(np.ascontiguousarray(image)) for image in images)
        return cls(names, (images[0].nbytes,) * n, (0,) * n, digests)

    @property
    def is_complete(self):
        """Whether the digests of all images are known."""
        return all(self.digests)

    @property
    def fingerprint(self):
        """32 hexadecimal digits of names, sizes and digests in their order.

        Where the manifest is complete, two data sets share it if and only if they are equal.
        """
        lines = zip(self.names, self.sizes, self.digests, strict=True)
        digest = hashlib.blake2b(digest_size=16)
        for name, size, content in lines:
            digest.update(f"{name}\0{size}\0{content}\n".encode(*ENCODING))
        return digest.hexdigest()

    def subset(self, indices, skipped=None):
        """The manifest of some of the images, in the order of these indices.

        Args:
            indices: of the images that stay.
            skipped: the reasons of those that don't, see ``skipped``.
        """
        names, sizes, modified, digests = (
            tuple(column[i] for i in indices)
            for column in (self.names, self.sizes, self.modified, self.digests)
        )
        return Manifest(names, sizes, modified, digests, skipped or {})

    def differences(self, other):
        """What is not in ``other`` as it is here: sentences, none where both are equal."""
        ours, theirs = (
            {name: (i, *rest) for i, (name, *rest) in enumerate(m._content())}
            for m in (self, other)
        )
        missing = [name for name in ours if name not in theirs]
        added = [name for name in theirs if name not in ours]
        both = [name for name in ours if name in theirs]
        changed = [name for name in both if ours[name][1:] != theirs[name][1:]]
        moved = [name for name in both if ours[name][0] != theirs[name][0]]
        if missing or added:  # then indices have shifted, and that says nothing more
            moved = []
        kinds = {"missing": missing, "added": added, "changed": changed, "renumbered": moved}
        return [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds.items() if names]

    def check(self, other, whose="the data set"):
        """Raise unless ``other`` is the same data: the same names, contents and order.

        Args:
            other: the Manifest of the data at hand.
            whose: what ``other`` is, for the message.

        Raises:
            ValueError: it names the images that differ.
        """
        require(
            self is other or self.fingerprint == other.fingerprint,
            f"{whose} with {len(other)} images that is not the one of the manifest, "
            f"with {len(self)}; {'; '.join(self.differences(other))}",
            "the same images in the same order: each row of a memory bank belongs to one of them",
            "Restore the data, or train anew on what is there now, with a new model and manifest.",
        )

    def save(self, path):
        """Write it as CSV: index, name, bytes, modified, blake2b; skipped files have no index."""
        Path(path).write_bytes(self._text().encode(*ENCODING))

    @classmethod
    def load(cls, path):
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file is no manifest.
        """
        text = Path(path).read_bytes().decode(*ENCODING)
        require(
            text.splitlines()[:1] == [",".join(COLUMNS)],
            f"{path}, which does not begin with {','.join(COLUMNS)!r}",
            "a manifest that Manifest.save wrote",
        )
        try:
            return cls._from_text(text)
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"Received: {path}, which is damaged ({error}). Expected a manifest that "
                "Manifest.save wrote. Restore it, or delete it and train anew."
            ) from error

    def to_array(self):
        """The manifest compressed into a uint8 array, as a checkpoint holds it."""
        return np.frombuffer(zlib.compress(self._text().encode(*ENCODING)), "uint8")

    @classmethod
    def from_array(cls, array):
        """Undo ``to_array``."""
        return cls._from_text(
            zlib.decompress(np.asarray(array, "uint8").tobytes()).decode(*ENCODING)
        )

    def _content(self):
        return zip(self.names, self.sizes, self.digests, strict=True)

    def _text(self):
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        columns = (self.names, self.sizes, self.modified, self.digests)
        writer.writerows(zip(range(len(self)), *columns, strict=True))
        writer.writerows(("", name, "", "", reason) for name, reason in self.skipped.items())
        return text.getvalue()

    @classmethod
    def _from_text(cls, text):
        rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        kept = [row for row in rows if row[0]]
        return cls(
            tuple(row[1] for row in kept),
            tuple(int(row[2]) for row in kept),
            tuple(int(row[3]) for row in kept),
            tuple(row[4] for row in kept),
            {row[1]: row[4] for row in rows if not row[0]},
        )


def digest(data):
    """32 hexadecimal digits for the bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def printable(name: str) -> str:
    """The name as text that every screen, page and file in UTF-8 can hold.

    A name in a folder is bytes; what is not UTF-8 in it becomes the replacement character.
    """
    return name.encode(*ENCODING).decode("utf-8", "replace")


def listed(names):
    """The first names, and how many more there are."""
    shown, more = [printable(name) for name in list(names)[:NAMED]], len(names) - NAMED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
