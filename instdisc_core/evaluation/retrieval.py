"""The nearest images of each query."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.bank_ops import BankOps
from instdisc_core.data import ImageSource
from instdisc_core.data.names import printable
from instdisc_core.evaluation.html_page import page_of_rows
from instdisc_core.evaluation.labels import CommonLabels, common_labels
from instdisc_core.evaluation.nearest import nearest
from instdisc_core.evaluation.pictures import Tile, draw_neighbors
from instdisc_core.evaluation.positions import positions_in
from instdisc_core.host_rows import HostRows
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.sharded_rows import ShardedRows, whole_shape
from instdisc_core.types import Tensor
from instdisc_core.validation import (
    check_features,
    check_indices,
    require,
    require_count,
    require_finite,
)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Queries, and the images that were found for each, best first.

    Attributes:
        queries: the ImageSource that the queries are from.
        gallery: the ImageSource that was searched.
        indices: of the queries in their source, ``(q,)``.
        neighbors: indices in the gallery, ``(q, k)``.
        similarities: cosines, ``(q, k)``.

    Example: ``found = retrieve(embeddings, photos, embeddings, photos, k=5)``
    """

    queries: ImageSource
    gallery: ImageSource
    indices: np.ndarray
    neighbors: np.ndarray
    similarities: np.ndarray

    @property
    def agreement(self) -> np.ndarray | None:
        """The share of each query's neighbors that have its label, ``(q,)``, or None."""
        return None if self._same_class is None else self._same_class.mean(axis=1)

    @cached_property
    def _same_class(self) -> np.ndarray | None:
        """Whether each neighbor has its query's label, ``(q, k)``; None without labels."""
        labels = self.labels
        return labels and labels.train[self.neighbors] == labels.test[self.indices][:, None]

    @cached_property
    def labels(self) -> CommonLabels | None:
        """Labels of gallery and queries in one numbering; None if either has none, or no names."""
        sides = self.queries, self.gallery
        named = {side.class_names is None for side in sides}
        if any(side.labels is None for side in sides) or len(named) > 1:
            return None
        return common_labels(self.gallery, self.queries, unseen=True)

    def best(self, count: int) -> "Retrieval":
        """The queries with the best neighbors, best first: by agreement, then by similarity."""
        return self._ranked(count, -1)

    def worst(self, count: int) -> "Retrieval":
        """The queries with the worst neighbors, worst first: by agreement, then by similarity."""
        return self._ranked(count, 1)

    def names(self) -> list[tuple[str, list[str]]]:
        """A pair for each query: its name, and the names of its neighbors."""
        return [
            (self.queries.names[i], [self.gallery.names[j] for j in found])
            for i, found in zip(self.indices, self.neighbors, strict=True)
        ]

    def tiles(self) -> Iterator[list[Tile]]:
        """What is drawn for each query: the query, then its neighbors."""
        for row, (i, found) in enumerate(zip(self.indices, self.neighbors, strict=True)):
            tiles = [Tile(self.queries.image(i), printable(self.queries.names[i]))]
            for column, j in enumerate(found):
                cosine = float(self.similarities[row, column])
                same = None if self._same_class is None else bool(self._same_class[row, column])
                tiles.append(
                    Tile(self.gallery.image(j), printable(self.gallery.names[j]), cosine, same)
                )
            yield tiles

    def plot(self, path: str | os.PathLike, title: str = "") -> None:
        """Draw one row for each query, its neighbors to the right of it, as PNG.

        Names and cosines are written below the images. Where labels are known, the color of a
        frame says whether a neighbor has the query's label.

        Args:
            path: of the PNG file.
            title: of the picture.
        """
        from matplotlib.figure import Figure

        queries, k = self.neighbors.shape
        figure = Figure((1.3 * (k + 1), 1.55 * queries + 0.5), layout="constrained")
        draw_neighbors(figure, self.tiles(), title)
        figure.savefig(path, dpi=110)

    def save_html(self, path: str | os.PathLike, title: str = "Nearest neighbors") -> None:
        """Write one HTML file, thumbnails included, with one row for each query.

        Each image is in it once. A name that is not valid UTF-8 is shown with replacement
        characters. ``ImageIndex.save_page`` writes a page of all images.

        Args:
            path: of the HTML file.
            title: of the page.
        """
        Path(path).write_text(page_of_rows(self, title), encoding="utf-8")

    def _ranked(self, count: int, sign: int) -> "Retrieval":
        require_count("count", count)
        agreement = np.zeros(len(self.indices)) if self.agreement is None else self.agreement
        order = np.lexsort((sign * self.similarities.mean(axis=1), sign * agreement))[:count]
        return Retrieval(
            self.queries,
            self.gallery,
            self.indices[order],
            self.neighbors[order],
            self.similarities[order],
        )


def retrieve(
    features: Tensor,
    queries: ImageSource,
    gallery_features: Tensor,
    gallery: ImageSource,
    k: int = 10,
    indices: ArrayLike | None = None,
    backend: str | BankOps | None = None,
) -> Retrieval:
    """Find the ``k`` nearest images of each query.

    Args:
        features: unit embeddings of all images in ``queries``, ``(q, embedding_dim)``.
        queries: their ImageSource.
        gallery_features: unit embeddings of the images in ``gallery``, ``(n, embedding_dim)``; or
            their MemoryBank. Prefer the bank to its ``rows``: it knows which images they belong
            to, and ``gallery`` is checked against that.
        gallery: their ImageSource. A query that the gallery contains (same name and same bytes, see
            ``positions_in``) is not returned as its own neighbor.
        k: number of neighbors, at most ``n``, or ``n - 1`` where the gallery contains a query.
        indices: which of the queries to search for, integers; None is all.
        backend: see ``registry.get_bank_ops``; None is a MemoryBank's own.

    Returns:
        A Retrieval.

    Raises:
        ValueError: embeddings that are not those of the sources, or not finite; a gallery that is
            not the data of the bank; or too large a ``k``.

    Source:
        Wu et al., section 4: ten neighbors of queries, best and worst cases.

    Example:
    ```python
    found = retrieve(model.predict(photos.ordered()), photos, model.memory_bank, photos, k=5)
    found.worst(3).plot("worst.png")
    found.save_html("neighbors.html")
    ```
    """
    if isinstance(gallery_features, MemoryBank):
        if gallery_features.manifest is not None:
            gallery_features.manifest.check(gallery.manifest, "a gallery")
        backend = gallery_features.bank_ops if backend is None else backend
        gallery_features = gallery_features.rows
    features, gallery_features = (
        rows if hasattr(rows, "shape") else np.asarray(rows, "float32")
        for rows in (features, gallery_features)
    )
    for name, rows, source in (
        ("features", features, queries),
        ("gallery_features", gallery_features, gallery),
    ):
        require(
            len(rows.shape) == 2 and whole_shape(rows)[0] == len(source),
            f"{name} of shape {whole_shape(rows)} for {len(source)} images",
            "one embedding for each image",
        )
    indices = np.arange(len(queries)) if indices is None else indices
    indices = np.asarray(check_indices(indices, len(queries), of="images"))
    own = positions_in(gallery, queries)[indices]
    features = check_features(features, gallery_features.shape[1])
    chosen = ops.take(ops.convert_to_tensor(features, "float32"), indices, axis=0)
    require_finite("features", ops.convert_to_numpy(chosen), indices)
    stored = (QuantizedRows, ShardedRows, HostRows, keras.Variable)
    if not isinstance(gallery_features, stored):  # a bank's rows are finite
        require_finite("gallery_features", ops.convert_to_numpy(gallery_features))
    similarities, neighbors = nearest(chosen, gallery_features, k, own, backend)
    return Retrieval(queries, gallery, indices, neighbors, similarities)
