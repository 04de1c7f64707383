"""Columns, of which one may be vectors, as a file that other tools read."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instdisc_core.data.names import printable
from instdisc_core.files import replacing
from instdisc_core.validation import require, require_choice

Columns = Mapping[str, Sequence[Any] | np.ndarray]


def check_table(path: Path) -> None:
    """Raise if ``write_table`` cannot write there: another suffix, or no folder for the file."""
    require_choice("the suffix of the file", path.suffix, WRITERS)
    require(
        path.parent.is_dir(),
        f"{printable(str(path))}, whose folder does not exist",
        "a path in a folder that does",
        "Create the folder first.",
    )


def write_table(path: Path, columns: Columns) -> None:
    """Write columns of one length as ``.npz``, ``.csv`` or ``.parquet``, by the suffix.

    An array ``(n, d)`` is a column of lists: in CSV numbers with spaces between them.
    """
    with replacing(path) as part:
        WRITERS[path.suffix](part, columns)


def write_projector(folder: Path, rows: np.ndarray, metadata: Columns) -> None:
    """Write the three files that TensorBoard's projector reads."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "tensors.tsv", rows, "%.6g", "\t")
    header = "\t".join(metadata) + "\n" if len(metadata) > 1 else ""  # one column has none
    lines = zip(*metadata.values(), strict=True)
    text = "".join("\t".join(printable(str(cell)) for cell in line) + "\n" for line in lines)
    (folder / "metadata.tsv").write_text(header + text, encoding="utf-8")
    (folder / "projector_config.pbtxt").write_text(
        'embeddings {\n  tensor_name: "images"\n  tensor_path: "tensors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n}\n'
    )


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

    arrays = {
        name: list(values) if isinstance(values, np.ndarray) else [printable(v) for v in values]
        for name, values in columns.items()
    }
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)


WRITERS = {".npz": _npz, ".csv": _csv, ".parquet": _parquet}
