"""Where a bank's rows are, how they start, and how they go into a file of weights."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.host_rows import HostRows, save_pieces, stored_form
from instdisc_core.types import RowStorage, StorageDtype
from instdisc_core.validation import UNIT_TOLERANCE, require

BLOCK_ROWS = 2**14  # a block should stay in a core's cache
IN_MEMORY = 2**30  # bytes of rows that a .keras file, which Keras builds in memory, may have


def random_unit_rows(
    seed: int | None, shape: tuple[int, int], block_rows: int = BLOCK_ROWS
) -> Iterator[np.ndarray]:
    """Random points of the unit sphere, block by block; the same for any size of the blocks.

    Args:
        seed: None draws other ones each time.
        shape: ``(num_rows, embedding_dim)``.
        block_rows: rows of a block, except the last.

    Yields:
        Float32 arrays ``(block_rows, embedding_dim)``.

    Example:
    ```python
    from instdisc_core.host_storage import random_unit_rows

    whole, halves = (list(random_unit_rows(0, (100, 8), size)) for size in (100, 50))
    assert np.array_equal(whole[0], np.concatenate(halves))
    ```
    """
    rng = np.random.default_rng(seed)
    for start in range(0, shape[0], block_rows):
        size = min(block_rows, shape[0] - start), shape[1]
        rows = rng.standard_normal(size, dtype="float32")
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield rows


def host_rows(
    storage: RowStorage, seed: int | None, shape: tuple[int, int], dtype: StorageDtype
) -> HostRows:
    """Rows outside the device, with the start that they have on the device.

    Args:
        storage: ``"host"``, or the path of a file, which is opened if it is there.
        seed, shape, dtype: see ``EmbeddingTable``.

    Raises:
        ValueError: the file has other rows.

    Example:
    ```python
    from instdisc_core.host_storage import host_rows

    rows = host_rows("host", seed=0, shape=(100, 8), dtype="bfloat16")
    ```
    """

    def blocks() -> Iterator[list[np.ndarray]]:
        for rows in random_unit_rows(seed, shape):
            yield [ops.convert_to_numpy(part) for part in stored_form(rows, dtype)]

    require(storage != "", "storage=''", "None, 'host', or the path of a file")
    if storage is None or storage != "host":
        return HostRows.mapped(storage or "", shape, dtype, blocks)
    widths = [(shape[1], dtype), *([(1, "float32")] if dtype == "int8" else [])]
    arrays = [np.empty((shape[0], width), kind) for width, kind in widths]
    start = 0
    for block in blocks():
        for array, new in zip(arrays, block, strict=True):
            array[start : start + len(new)] = new
        start += len(block[0])
    return HostRows(arrays)


def save_rows(store: MutableMapping[str, Any], bank_ops: BankOps, rows: Any) -> int:
    """Save a bank as arrays named ``"0"``, ``"1"``; those of HostRows in pieces if large.

    Returns:
        The number of arrays.

    Raises:
        ValueError: HostRows of more than a gibibyte, and a file that Keras builds in memory.
    """
    arrays = bank_ops.dump(rows)
    for i, array in enumerate(arrays):
        if not isinstance(rows, HostRows):
            store[str(i)] = array
            continue
        require(
            rows.nbytes <= IN_MEMORY or getattr(store, "archive", None) is None,
            f"{rows.nbytes / 2**30:.0f} GiB of rows in the host's memory or in a file, and a "
            ".keras file, which Keras builds in memory",
            "a file of weights",
            "Use save_weights, which writes the rows in pieces.",
        )
        save_pieces(store, str(i), array)
    return len(arrays)


def require_sound(name: str, arrays: Sequence[Any], unit_rows: bool) -> None:
    """Raise unless all rows of a file are finite, and of length 1 where they must be.

    Args:
        name: of the owner of the rows, for the message.
        arrays: rows ``(n, d)``, and scales ``(n, 1)`` if there are any, or Pieces of them; it holds
            a block at a time.
        unit_rows: whether they must be of length 1.

    Raises:
        ValueError: it says how many rows are not.
    """
    count, wrong = arrays[0].shape[0], 0
    for start in range(0, count, BLOCK_ROWS):
        values, *scales = (array[start : start + BLOCK_ROWS] for array in arrays)
        lengths = np.linalg.norm(values.astype("float32"), axis=1)
        for scale in scales:
            lengths = lengths * np.abs(scale[:, 0])
        right = np.abs(lengths - 1) < UNIT_TOLERANCE if unit_rows else np.isfinite(lengths)
        wrong += int(np.sum(~right))
    require(
        wrong == 0,
        f"a file in which {wrong} of {count} rows of {name} are not "
        f"{'of length 1' if unit_rows else 'finite'}",
        "unit rows, as update leaves them" if unit_rows else "finite rows",
        "The file is damaged, or such rows were assigned.",
    )
