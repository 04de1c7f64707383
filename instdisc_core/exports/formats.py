"""Which file is of which format."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, get_args

from instdisc_core.data.names import printable
from instdisc_core.validation import require, require_choice

TableFormat = Literal["csv", "npz", "parquet"]
EncoderFormat = Literal["onnx", "torch-export", "saved-model", "litert"]
Format = Literal[TableFormat, "faiss", "projector", EncoderFormat]

TABLE_FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
ENCODER_FORMATS: tuple[EncoderFormat, ...] = get_args(EncoderFormat)
# Of several without a suffix, which are folders, the first is the default.
SUFFIXES: dict[Any, str] = {
    "csv": ".csv",
    "npz": ".npz",
    "parquet": ".parquet",
    "faiss": ".faiss",
    "projector": "",
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "saved-model": "",
    "litert": ".tflite",
}
FORMATS: tuple[Format, ...] = tuple(SUFFIXES)


def format_of(path: str | os.PathLike, format: Any = None, among: Collection[Any] = FORMATS) -> Any:
    """The format of a file or folder that is to be written, by its suffix if None is given.

    Raises:
        ValueError: the suffix is of none of these formats, or of another one; the folder that the
            file should be in does not exist; or there is a file in place of the folder.
    """
    path = Path(path)
    suffixes = {name: SUFFIXES[name] for name in among}
    if format is None:
        known = dict.fromkeys(suffixes.values())
        require_choice("the suffix of the file", path.suffix, known)
        format = next(name for name, suffix in suffixes.items() if suffix == path.suffix)
    require_choice("format", format, tuple(among))
    suffix = suffixes[format]
    require(
        path.suffix == suffix,
        f"{printable(str(path))!r} with format={format!r}",
        f"a file that ends in {suffix}" if suffix else "a folder, whose name has no suffix",
    )
    require(
        not suffix or path.parent.is_dir(),
        f"{printable(str(path))}, whose folder does not exist",
        "a path in a folder that does",
        "Create the folder first.",
    )
    require(
        suffix != "" or not path.is_file(),
        f"{printable(str(path))}, which is a file",
        "a folder, which is created",
    )
    return format
