"""The file of a bank's rows: a header of one page, the rows, and the scales of int8."""

import gc
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from instdisc_core.files import replacing
from instdisc_core.types import StorageDtype
from instdisc_core.validation import require

MAGIC = b"instdisc"
WHOLE, WRITING = b"W", b"O"  # the byte after MAGIC
VERSION = 1
PAGE = 4096


class Table(NamedTuple):
    """An array in a file.

    Attributes:
        offset: of its first byte.
        shape: ``(num_rows, width)``.
        dtype: of its elements.
    """

    offset: int
    shape: tuple[int, int]
    dtype: np.dtype


class RowFile:
    """The layout of a file of rows, and its state: whole, or with unfinished writes.

    The state is one byte in the header. It is flushed to the disk before the first row is written,
    and again after all rows are, so a file whose process or machine stopped in between is found.

    Args:
        path: of the file.
        num_rows, embedding_dim, dtype: see ``EmbeddingTable``.

    Example:
    ```python
    from instdisc_core.host_rows import RowFile

    file = RowFile("bank.rows", num_rows=1000, embedding_dim=128, dtype="int8")
    file.create([(np.ones((1000, 128), "int8"), np.ones((1000, 1), "float32"))])
    assert file.check()  # it is whole
    ```
    """

    def __init__(
        self,
        path: str | os.PathLike,
        num_rows: int,
        embedding_dim: int,
        dtype: StorageDtype,
    ) -> None:
        self.path = Path(path).absolute()
        self.about = {
            "version": VERSION,
            "num_rows": num_rows,
            "embedding_dim": embedding_dim,
            "dtype": dtype,
        }
        self._shapes = [((num_rows, embedding_dim), np.dtype(dtype))]
        if dtype == "int8":
            self._shapes.append(((num_rows, 1), np.dtype("float32")))
        # A compiled step writes from other threads than the one that flushes.
        lock = self.path.with_name(f".{self.path.name}.lock")
        self._lock = FileLock(lock, thread_local=False)

    @property
    def tables(self) -> list[Table]:
        """The rows, and the scales if there are any; each begins on a page."""
        found, offset = [], PAGE
        for shape, dtype in self._shapes:
            found.append(Table(offset, shape, dtype))
            offset += -(-shape[0] * shape[1] * dtype.itemsize // PAGE) * PAGE
        return found

    def create(self, blocks: Iterable[Sequence[np.ndarray]]) -> None:
        """Write a new file, which is there as a whole or not at all.

        Args:
            blocks: consecutive blocks of rows as they are stored, each with its scales if there
                are any.

        Raises:
            OSError: the disk is full, say.
        """
        tables = self.tables
        with replacing(self.path) as part, open(part, "wb") as file:
            file.write(MAGIC + WHOLE + b"\n" + json.dumps(self.about).encode() + b"\n")
            done = 0
            for block in blocks:
                for table, array in zip(tables, block, strict=True):
                    width = table.shape[1] * table.dtype.itemsize
                    file.seek(table.offset + done * width)
                    file.write(np.ascontiguousarray(array, table.dtype).view("uint8").data)
                done += len(block[0])
            file.truncate(self._size())

    def check(self) -> bool:
        """Whether the rows in the file are whole.

        Raises:
            ValueError: it is no file of rows, or of other ones: the message says what differs.
        """
        with open(self.path, "rb") as file:
            header = file.read(PAGE)
        known = header.startswith((MAGIC + WHOLE + b"\n", MAGIC + WRITING + b"\n"))
        about = json.loads(header.split(b"\n")[1]) if known else {}
        require(
            known,
            f"{str(self.path)!r}, which does not begin as a file of rows",
            "a file that a memory bank wrote",
            "Name another one; a file that does not exist is created.",
        )
        wanted = self.about
        different = [key for key in wanted if about.get(key) != wanted[key]]
        require(
            not different,
            f"{str(self.path)!r} with {', '.join(f'{key}={about.get(key)}' for key in different)}",
            ", ".join(f"{key}={wanted[key]}" for key in different),
            "Open it with what it was created with, or name another file.",
        )
        size = os.path.getsize(self.path)
        require(
            size == self._size(),
            f"{str(self.path)!r} of {size} bytes",
            f"{self._size()} bytes",
            "The file was cut short. Take another copy.",
        )
        return header.startswith(MAGIC + WHOLE)

    def mark(self, state: bytes) -> None:
        """Write the state, ``WHOLE`` or ``WRITING``, and wait until it is on the disk."""
        with open(self.path, "r+b") as file:
            file.seek(len(MAGIC))
            file.write(state)
            file.flush()
            os.fsync(file.fileno())

    def lock(self) -> None:
        """Let no other process write to the file while this one runs.

        Raises:
            ValueError: another one, or another bank of this process, writes to it.
        """
        held = not self._acquired()
        if held:
            gc.collect()  # a bank that nothing refers to any more has flushed its rows then
            held = not self._acquired()
        require(
            not held,
            f"{str(self.path)!r}, to which another process or another bank writes",
            "a file that no other bank writes to",
            "Wait for it to end, or copy the file.",
        )

    def unlock(self) -> None:
        """Let others write to it."""
        self._lock.release()

    def _acquired(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _size(self) -> int:
        last = self.tables[-1]
        return last.offset + last.shape[0] * last.shape[1] * last.dtype.itemsize


def opened(file: RowFile, blocks: Callable[[], Iterable[Sequence[np.ndarray]]]) -> bool:
    """Create the file if it is not there; whether it is whole."""
    if not file.path.exists():
        file.create(blocks())
    return file.check()
