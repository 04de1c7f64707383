"""A manifest as the bytes of a CSV file, and back."""

import csv
import io
from typing import NamedTuple

from instdisc_core.data.names import ENCODING
from instdisc_core.data.reading import digest

HEADER = ("index", "name", "bytes", "modified", "blake2b")
END = "end"  # first in the last line, before the counts and the digest of all lines above


class Columns(NamedTuple):
    """What a manifest consists of; see the attributes of ``Manifest``."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    modified: tuple[int, ...]
    digests: tuple[str, ...]
    skipped: dict[str, str]


def to_csv(columns: Columns) -> bytes:
    """A line for each image, one for each skipped file, and a last one.

    The last line holds ``end``, the count of images, the count of skipped files, and the digest of
    all lines above.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEADER)
    count = len(columns.names)
    writer.writerows(zip(range(count), *columns[:4], strict=True))
    writer.writerows(("", name, "", "", reason) for name, reason in columns.skipped.items())
    content = digest(text.getvalue().encode(*ENCODING))
    writer.writerow((END, count, len(columns.skipped), "", content))
    return text.getvalue().encode(*ENCODING)


def from_csv(data: bytes) -> Columns:
    """Undo ``to_csv``.

    Raises:
        ValueError: the bytes are not what ``to_csv`` returned. Line ends may be those of another
            system, as git changes them. The message is the reason alone.
    """
    text = data.decode(*ENCODING)
    header = ",".join(HEADER)
    if not text.startswith(header):
        raise ValueError(f"it does not begin with {header!r}")
    try:
        columns = _parsed(text)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    written = to_csv(columns)
    if data not in (written, written.replace(b"\r\n", b"\n")):
        raise ValueError("it was cut or changed: its last line does not fit those above")
    return columns


def _parsed(text: str) -> Columns:
    """What the lines say, up to the last one, which is not looked at."""
    rows = csv.reader(io.StringIO(text, newline=""))
    next(rows)
    names, sizes, modified, digests = [], [], [], []
    skipped = {}
    for index, name, size, changed, content in rows:  # raises a ValueError for other counts
        if index == END:
            break
        if index:
            names.append(name)
            sizes.append(int(size))
            modified.append(int(changed))
            digests.append(content)
        else:
            skipped[name] = content
    return Columns(tuple(names), tuple(sizes), tuple(modified), tuple(digests), skipped)
