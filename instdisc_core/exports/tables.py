"""Columns, of which some may be vectors, as a file that other tools read."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instdisc_core.data.names import ENCODING
from instdisc_core.files import replacing

Columns = Mapping[str, Sequence[Any] | np.ndarray]


def write_table(path: Path, columns: Columns) -> None:
    """Write columns of one length as ``.npz``, ``.csv`` or ``.parquet``, by the suffix.

    An array ``(n, d)`` is a column of lists: in CSV numbers with spaces between them, in parquet
    lists of a fixed size. The columns ``neighbors`` and ``distances`` are one column in parquet,
    ``neighbors``, of the structs ``{ids, distances}`` that embedding-atlas reads. A name that is
    not UTF-8 is in CSV the bytes that it has on the disk; parquet, which holds UTF-8 alone, has
    the replacement character in place of what is not.
    """
    with replacing(path) as part:
        WRITERS[path.suffix](part, columns)


def _npz(path: Path, columns: Columns) -> None:
    arrays: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
    np.savez(path, **arrays)


def _csv(path: Path, columns: Columns) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(
                " ".join(f"{x:.9g}" for x in cell) if isinstance(cell, np.ndarray) else cell
                for cell in row
            )


def _parquet(path: Path, columns: Columns) -> None:
    import pyarrow
    import pyarrow.parquet

    arrays = {name: _arrow(values) for name, values in columns.items()}
    distances = arrays.pop("distances", None)
    if distances is not None:
        parts = [
            each.cast(pyarrow.list_(each.type.value_type))
            for each in (arrays["neighbors"], distances)
        ]
        arrays["neighbors"] = pyarrow.StructArray.from_arrays(parts, ["ids", "distances"])
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)


def _arrow(values: Sequence[Any] | np.ndarray) -> Any:
    """A column of pyarrow."""
    import pyarrow

    if not isinstance(values, np.ndarray):
        names = (value.encode(*ENCODING) for value in values)
        return pyarrow.array([name.decode("utf-8", "replace") for name in names])
    flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
    if values.ndim == 1:
        return flat
    if values.shape[1] == 0:
        return pyarrow.array([[]] * len(values), pyarrow.list_(flat.type))
    return pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])


WRITERS = {".npz": _npz, ".csv": _csv, ".parquet": _parquet}
