"""HostRows: a bank whose rows are NumPy arrays, in memory or mapped from a file."""

import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np
from keras import ops

from instdisc_core.host_rows.row_file import WHOLE, WRITING, RowFile, opened
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.types import StorageDtype, Tensor
from instdisc_core.validation import require

BLOCK_ROWS = 2**16
Blocks = Callable[[], Iterable[Sequence[np.ndarray]]]


class HostRows:
    """The rows of a bank outside the device, as they are stored: read and written in place.

    ``StreamedBankOps`` computes with them; it brings blocks and chosen rows to the device.

    Rows in a file are mapped, so that the operating system keeps in memory what is used, and a
    process that ends by an error leaves all its writes. The header says whether the file is whole.
    It is not from the first write until ``flush``, which runs at the end of an epoch, when weights
    are saved, and when the process ends. A file that is not whole, because its process was killed
    or its machine stopped, is opened with a warning, and every read raises until ``load`` has
    replaced all rows, as ``load_weights`` and ``Checkpoints`` do.

    Args:
        arrays: the rows ``(num_rows, embedding_dim)``, and the scales ``(num_rows, 1)`` of int8.
        file: the RowFile that they are mapped from, or None.
        is_whole: whether that file was whole.

    Attributes:
        shape: ``(num_rows, embedding_dim)``.
        dtype: name of the storage, see ``EmbeddingTable``.
        loads: how many times all rows have been replaced.

    Example:
    ```python
    bank = MemoryBank(1000, 128, dtype="int8", storage="bank.rows")
    assert bank.rows.shape == (1000, 128)
    bank.rows.flush()
    ```
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], file: RowFile | None = None, is_whole: bool = True
    ) -> None:
        self.arrays = list(arrays)
        self.shape = (int(arrays[0].shape[0]), int(arrays[0].shape[1]))
        self.dtype = str(arrays[0].dtype)
        self.loads = 0
        self._state = _State(file, self.arrays, is_whole)
        weakref.finalize(self, self._state.close)

    @classmethod
    def mapped(
        cls, path: str | os.PathLike, shape: tuple[int, int], dtype: StorageDtype, blocks: Blocks
    ) -> "HostRows":
        """The rows of a file, which is created from blocks if it is not there.

        Raises:
            ValueError: the file has rows of another number, width or dtype.
        """
        file = RowFile(path, *shape, dtype)
        is_whole = opened(file, blocks)
        if not is_whole:
            warnings.warn(
                f"{str(file.path)!r} was not closed: its process was killed, or still runs. "
                "Some rows may be older than others, or damaged. Load weights before you use them.",
                stacklevel=2,
            )
        arrays = [
            np.memmap(file.path, table.dtype, "r+", table.offset, table.shape)
            for table in file.tables
        ]
        return cls(arrays, file, is_whole)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows and scales."""
        return sum(array.nbytes for array in self.arrays)

    def block(self, start: int, stop: int) -> list[np.ndarray]:
        """Consecutive rows and their scales, as views of the storage."""
        self._state.require_whole()
        return [array[start:stop] for array in self.arrays]

    def read(self, indices: np.ndarray) -> list[np.ndarray]:
        """Copies of chosen rows, and of their scales: one more axis than ``indices``."""
        self._state.require_whole()
        indices = np.asarray(indices)
        flat = indices.reshape(-1)
        # A view of a memory map as an array of the base class is read much faster.
        tables = [np.asarray(array) for array in self.arrays]
        return [table.take(flat, axis=0).reshape(*indices.shape, -1) for table in tables]

    def write(self, indices: np.ndarray, moves: np.ndarray, *rows: np.ndarray) -> None:
        """Write rows, and their scales, where ``moves``."""
        self._state.require_whole()
        with self._state.writing():
            chosen = np.asarray(indices)[np.asarray(moves)]
            for array, new in zip(self.arrays, rows, strict=True):
                array[chosen] = np.asarray(new)[np.asarray(moves)]

    def load(self, arrays: Sequence) -> None:
        """Replace all rows: by arrays as they are stored, or what gives them when it is sliced."""
        self._replace(lambda some: [array[some] for array in arrays])

    def assign(self, rows: Tensor) -> None:
        """Replace all rows by float rows."""
        shape = tuple(rows.shape)
        require(shape == self.shape, f"rows of shape {shape}", f"{self.shape}")
        self._replace(
            lambda some: [ops.convert_to_numpy(x) for x in stored_form(rows[some], self.dtype)]
        )

    def _replace(self, block_of: Callable[[slice], Sequence[np.ndarray]]) -> None:
        self.loads += 1
        with self._state.writing(all_of_them=True):
            for start in range(0, self.shape[0], BLOCK_ROWS):
                some = slice(start, start + BLOCK_ROWS)
                for array, new in zip(self.arrays, block_of(some), strict=True):
                    array[some] = new
        self.flush()

    def invalidate_unless(self, they_belong: bool) -> None:
        """Let every read raise until all rows are replaced, unless they belong to their model."""
        if not they_belong:
            with suppress(_OfAnotherModel), self._state.writing():
                raise _OfAnotherModel

    def flush(self) -> None:
        """Wait until all rows are on the disk, and mark the file as whole."""
        self._state.flush()


class _OfAnotherModel(Exception):
    """The rows were replaced, and the rest of the model was not."""


class _State:
    """Whether rows are whole, in memory and in the file. It does not keep their owner alive."""

    def __init__(self, file: RowFile | None, arrays: list[np.ndarray], is_whole: bool) -> None:
        self._file, self._arrays = file, arrays
        self._is_whole, self._is_marked, self._is_inside = is_whole, False, False

    def require_whole(self) -> None:
        require(
            self._is_whole,
            f"{repr(str(self._file.path)) if self._file else 'rows in memory'}, which was not "
            "closed, or not loaded to its end",
            "whole rows",
            "Load the weights that were saved last, or remove the file to start from new rows.",
        )

    def writing(self, all_of_them: bool = False) -> "_State":
        """A context in which rows are written."""
        if self._file is not None and not self._is_marked:
            self._file.lock()
            self._file.mark(WRITING)
            self._is_marked = True
        self._is_whole = self._is_whole and not all_of_them
        self._all_of_them = all_of_them
        return self

    def __enter__(self) -> None:
        self._is_inside = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._is_inside = False
            self._is_whole = self._is_whole or self._all_of_them
        else:  # interrupted between a row and its scale
            self._is_whole = False

    def flush(self) -> None:
        if not self._is_marked or self._file is None or self._is_inside or not self._is_whole:
            return
        for array in self._arrays:
            if isinstance(array, np.memmap):
                array.flush()
        self._file.mark(WHOLE)
        self._file.unlock()
        self._is_marked = False

    def close(self) -> None:
        """Flush, when the rows are deleted or the process ends."""
        with suppress(FileNotFoundError):  # it was removed
            self.flush()
        if self._file is not None:
            self._file.unlock()


def stored_form(rows: Tensor, dtype: str) -> Sequence[Tensor]:
    """Float rows as a bank of this dtype stores them, with their scales if it has any.

    Args:
        rows: ``(n, d)``.
        dtype: of the storage, see ``EmbeddingTable``.

    Returns:
        A tensor, or the two of ``QuantizedRows``.

    Example:
    ```python
    from instdisc_core.host_rows import stored_form

    values, scale = stored_form(keras.ops.ones((2, 4)), "int8")
    ```
    """
    return QuantizedRows.of(rows) if dtype == "int8" else (ops.cast(rows, dtype),)
