"""Which image is instance 1234: the list that a memory bank's rows belong to."""

import csv
import hashlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from instdisc_core.data.packing import pack, unpack
from instdisc_core.data.reading import contents
from instdisc_core.files import replacing
from instdisc_core.validation import require

COLUMNS = ("index", "name", "bytes", "modified", "blake2b")
END = "end"  # first in the last line, before the counts and the digest of all lines above
ENCODING = ("utf-8", "surrogateescape")  # a name need not be valid UTF-8
LONGEST = 2**16  # characters of a name or a reason; a CSV reader takes up to 2**17
TEXT = f"texts of 1 to {LONGEST} characters, none of them NUL, in UTF-8 or from a file name"
NAMED = 5  # how many files an error names before it counts the others
DIGEST = re.compile("(?:[0-9a-f]{32})?")
# Control codes, ends of lines and paragraphs, turns of the direction of text, half characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Manifest:
    """The images of a data set in the order of their instance indices.

    As a file and as an array it ends with its counts and a digest of its content, so that one
    that was cut or changed is rejected.

    Attributes:
        names: of each image, all different; in a folder, its path from there with ``/`` between
            the parts.
        sizes: in bytes.
        modified: when a file last changed, in nanoseconds; 0 where that means nothing. No part of
            the fingerprint: a copied folder is the same data.
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
    print(manifest.names[1234])
    ```
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    modified: tuple[int, ...]
    digests: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
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
    def of_pixels(cls, names, images):
        """The manifest of images ``(n, height, width, 3)`` in memory."""
        n = len(images)
        digests = tuple(digest(np.ascontiguousarray(image).data) for image in images)
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
        for name, size, content in lines:  # no name holds NUL, so that one ends where it says
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
            "Restore the data, or train a new model, with a new manifest, on the present data.",
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write it as CSV: index, name, bytes, modified, blake2b; skipped files have no index.

        The last line holds ``end``, the count of images, the count of skipped files, and the
        BLAKE2b digest of all lines above. A file that is there is replaced whole or not at all.
        """
        with replacing(path) as part:
            part.write_bytes(self._text().encode(*ENCODING))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Manifest":
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file cannot be read, is no manifest, or is not as ``save`` left it.
        """
        what = printable(str(path))
        try:
            data, _ = contents(Path(path), sys.maxsize)
        except ValueError as error:
            raise ValueError(
                f"Received: {what}, which cannot be read ({error}). Expected a file that "
                "Manifest.save wrote. Give the path of such a file."
            ) from error
        return cls._read(
            data,
            what,
            "Restore it; or delete it, and train a new model on what is there now.",
        )

    def to_array(self) -> np.ndarray:
        """The manifest compressed into a uint8 array ``(length,)``, as a checkpoint holds it."""
        return self._packed

    @cached_property
    def _packed(self):  # once: a run may save itself every minute
        return pack(self._text().encode(*ENCODING))

    @classmethod
    def from_array(cls, array: np.ndarray) -> "Manifest":
        """Undo ``to_array``, without unpacking more than 64 times the size of the array.

        Raises:
            ValueError: the array is not as ``to_array`` returned it.
        """
        what = "the array of a manifest"
        remedy = "The file that it is from is damaged: take another copy, or another checkpoint."
        try:
            data = unpack(array)
        except ValueError as error:
            raise _damaged(what, str(error), remedy) from error
        return cls._read(data, what, remedy)

    @classmethod
    def _read(cls, data, what, remedy):
        """The manifest that a text holds; an error says that ``what`` is damaged."""
        text = data.decode(*ENCODING)
        header = ",".join(COLUMNS)
        if not text.startswith(header):
            raise _damaged(what, f"it does not begin with {header!r}", remedy)
        try:
            manifest = cls._parsed(text)
            written = manifest._text()
        except (ValueError, csv.Error) as error:
            raise _damaged(what, str(error), remedy) from error
        if text not in (written, written.replace("\r\n", "\n")):  # git may change line ends
            why = "it was cut or changed: its last line does not fit those above"
            raise _damaged(what, why, remedy)
        return manifest

    def _content(self):
        return zip(self.names, self.sizes, self.digests, strict=True)

    def _text(self):
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        columns = (self.names, self.sizes, self.modified, self.digests)
        writer.writerows(zip(range(len(self)), *columns, strict=True))
        writer.writerows(("", name, "", "", reason) for name, reason in self.skipped.items())
        content = digest(text.getvalue().encode(*ENCODING))
        writer.writerow((END, len(self), len(self.skipped), "", content))
        return text.getvalue()

    @classmethod
    def _parsed(cls, text):
        """What the lines say, up to the last one, which is not looked at."""
        rows = csv.reader(io.StringIO(text, newline=""))
        next(rows)
        names, sizes, modified, digests = [], [], [], []
        skipped = {}
        for index, name, size, changed, content in rows:  # or a ValueError, at once
            if index == END:
                break
            if index:
                names.append(name)
                sizes.append(int(size))
                modified.append(int(changed))
                digests.append(content)
            else:
                skipped[name] = content
        return cls(tuple(names), tuple(sizes), tuple(modified), tuple(digests), skipped)


def _damaged(what, why, remedy):
    return ValueError(
        f"Received: {what}, which is damaged ({why}). Expected it as Manifest wrote it. {remedy}"
    )


def _is_text(text):
    """Whether this can be written and read again as it is."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST or "\0" in text:
        return False
    try:
        return text.isascii() or text.encode(*ENCODING).decode(*ENCODING) == text
    except UnicodeEncodeError:
        return False


def _is_digest(text):
    return isinstance(text, str) and DIGEST.fullmatch(text)


def _require_all(column, values, is_right, expected):
    wrong = [value for value in values if not is_right(value)]
    shown = ", ".join(ascii(value)[:80] for value in wrong[:NAMED])
    require(not wrong, f"{len(wrong)} {column} such as {shown}", expected)


def digest(data: bytes | memoryview) -> str:
    """32 hexadecimal digits for the bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def printable(name: str) -> str:
    """The name as one line of text that every screen, page and file in UTF-8 can hold.

    A name in a folder is bytes; what is not UTF-8 in it, and control codes, become the replacement
    character.
    """
    return UNPRINTABLE.sub("\ufffd", name)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown, more = [printable(name) for name in list(names)[:NAMED]], len(names) - NAMED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
