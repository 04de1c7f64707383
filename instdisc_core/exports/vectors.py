"""The rows of an index in the files of other programs that search and draw vectors."""

from pathlib import Path

import numpy as np

from instdisc_core.data.names import printable
from instdisc_core.exports.tables import Columns
from instdisc_core.files import replacing
from instdisc_core.validation import require


def write_faiss(path: Path, rows: np.ndarray) -> None:
    """Write an exact FAISS index of inner products; the id of a row is its position."""
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows))
    with replacing(path) as part:
        faiss.write_index(index, str(part))


def write_projector(folder: Path, rows: np.ndarray, metadata: Columns) -> None:
    """Write the three files that TensorBoard's projector reads; two or more columns of metadata."""
    mine = [name for name in ("tensors.tsv", "metadata.tsv") if (folder / name).exists()]
    require(
        not mine or (folder / "projector_config.pbtxt").exists(),
        f"{printable(str(folder))}, which holds {', '.join(mine)} of something else",
        "a folder without files of these names, or an earlier export",
    )
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "tensors.tsv", rows, "%.6g", "\t")
    lines = [tuple(metadata), *zip(*metadata.values(), strict=True)]
    text = "".join("\t".join(printable(str(cell)) for cell in line) + "\n" for line in lines)
    (folder / "metadata.tsv").write_text(text, encoding="utf-8")
    (folder / "projector_config.pbtxt").write_text(
        'embeddings {\n  tensor_name: "images"\n  tensor_path: "tensors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n}\n'
    )
