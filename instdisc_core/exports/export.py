"""One call from an index to a file or folder of another tool."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from instdisc_core.exports.encoder import encoder_exporter, export_encoder
from instdisc_core.exports.formats import ENCODER_FORMATS, Format, format_of
from instdisc_core.exports.packages import require_packages
from instdisc_core.exports.tables import write_table
from instdisc_core.exports.vectors import write_faiss, write_projector
from instdisc_core.index import DEFAULT_THRESHOLD, ImageIndex

NEEDS: dict[str, tuple[str, str]] = {"parquet": ("pyarrow", "parquet"), "faiss": ("faiss", "faiss")}


def export(
    index: ImageIndex,
    path: str | os.PathLike,
    format: Format | None = None,
    folder: str | os.PathLike = "",
    k: int = 10,
    clusters: int | None = None,
    threshold: float = DEFAULT_THRESHOLD,
) -> None:
    """Write an index, or its encoder, for another tool.

    - ``csv``, ``npz``, ``parquet``: a row for each image, of ``name``, ``path``, ``vector``,
      ``neighbors`` (row numbers from 0), ``distances`` (1 - cosine), ``near_duplicate_group``
      (from 0, the largest first; -1 for none) and, if asked for, ``cluster``. In parquet,
      ``vector`` is a list of a fixed size, as LanceDB needs it, and ``neighbors`` a struct
      ``{ids, distances}``, as embedding-atlas does.
    - ``faiss``: the rows as an exact FAISS index of inner products; ids are row numbers.
    - ``projector``: a folder for TensorBoard's projector.
    - ``onnx``, ``torch-export``, ``saved-model``, ``litert``: the encoder; see ``export_encoder``.

    Args:
        index: an ImageIndex.
        path: to write to; what is there is replaced.
        format: None is the one of the suffix ``.csv``, ``.npz``, ``.parquet``, ``.faiss``,
            ``.onnx``, ``.pt2`` or ``.tflite``, and ``projector`` for a path without a suffix.
        folder: of the images, for the column ``path``.
        k: neighbors of each image, at least 1; of fewer images, all others; of one, none.
        clusters: number of clusters, at most one for each image; None for no such column.
        threshold: of near-duplicates; see ``ImageIndex.near_duplicates``.

    Raises:
        ValueError: another suffix, no folder for the file, or an index without an encoder; and as
            ``export_encoder``.
        ImportError: a package is missing; nothing has been computed then.

    Example:
    ```python
    from instdisc_core.exports import export

    export(ImageIndex(embeddings, photos), "photos.csv", clusters=4)
    ```
    """
    format, path = check_export(path, format), Path(path)
    if format in ENCODER_FORMATS:
        if index.model is None or index.size is None:
            raise ValueError(
                "Received: an index without an encoder. Expected one that embeds images. Build it "
                "with ImageIndex.from_model, or load it with ImageIndex.load(folder, model=...)."
            )
        index.check_weights()
        return export_encoder(index.model, path, index.size, format, index.mirror)
    if format == "faiss":
        return write_faiss(path, index.rows)
    more: dict[str, Any] = {"near_duplicate_group": _groups(index, threshold)}
    if clusters is not None:
        more["cluster"] = index.clusters(min(clusters, len(index))).labels
    if format == "projector":
        return write_projector(path, index.rows, {"name": index.names, **more})
    cosines, neighbors = np.empty((1, 0), "float32"), np.empty((1, 0), "int32")
    if len(index) > 1:
        cosines, neighbors = index.neighbors(min(k, len(index) - 1))
    columns: dict[str, Any] = {
        "name": index.names,
        "path": [str(Path(folder) / name) for name in index.names],
        "vector": index.rows,
        "neighbors": neighbors,
        "distances": 1 - cosines,
        **more,
    }
    write_table(path, columns)


def check_export(path: str | os.PathLike, format: Format | None = None) -> Any:
    """The format of an export, once everything is there that it needs.

    Raises:
        ValueError, ImportError: as ``export``.
    """
    format = format_of(path, format)
    if format in ENCODER_FORMATS:
        encoder_exporter(format)
    elif format in NEEDS:
        module, extra = NEEDS[format]
        require_packages(module, extra=extra)
    return format


def _groups(index: ImageIndex, threshold: float) -> np.ndarray:
    """The group of near-duplicates of each image, -1 for none."""
    groups = np.full(len(index), -1)
    for number, members in enumerate(index.near_duplicates(threshold).groups):
        groups[members] = number
    return groups
