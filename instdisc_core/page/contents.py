"""What a page shows, and the same as JSON for its script."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from instdisc_core.data.names import printable

MAP_STEPS = 9999  # the coordinates of the map are integers from 0 to this


class NeighborRow(NamedTuple):
    """One query and its neighbors, the most similar first.

    Attributes:
        query: index of the image.
        neighbors: indices ``(k,)``.
        similarities: cosines ``(k,)``.
    """

    query: int
    neighbors: np.ndarray
    similarities: np.ndarray


@dataclass(frozen=True, eq=False)
class Contents:
    """What a page shows. What is None or empty has no tab.

    Attributes:
        title: of the page.
        names: of the images; image ``i`` is ``names[i]``.
        labels: integers ``(n,)``, or None.
        class_names: what each label means, or None.
        neighbors: indices ``(n, k)``, or None.
        similarities: cosines ``(n, k)``, or None.
        rows: queries with their neighbors, as a list.
        duplicates: groups of indices; None if nobody has looked for them.
        outliers: indices, the oddest first.
        outlier_similarities: of each, the mean cosine to the nearest others.
        clusters: for each cluster its indices, the most typical first.
        positions: ``(n, 2)``, where the map shows each image, or None.
    """

    title: str
    names: Sequence[str]
    labels: np.ndarray | None = None
    class_names: Sequence[str] | None = None
    neighbors: np.ndarray | None = None
    similarities: np.ndarray | None = None
    rows: Sequence[NeighborRow] = ()
    duplicates: Sequence[np.ndarray] | None = None
    outliers: Sequence[int] | np.ndarray = ()
    outlier_similarities: Sequence[float] | np.ndarray = ()
    clusters: Sequence[np.ndarray] = ()
    positions: np.ndarray | None = None
    files: Mapping[str, Any] = field(default_factory=dict)

    def script(self) -> str:
        """A JavaScript statement that defines ``PAGE``; it may stand in a file or in HTML.

        Similarities are integers, in thousandths; indices of all neighbors are one list.
        """
        labels, thousandths = self.labels, self.similarities
        page: dict[str, Any] = {
            "title": printable(self.title),
            "names": [printable(name) for name in self.names],
            "labels": None if labels is None else labels.tolist(),
            "classes": class_texts(labels, self.class_names),
            "k": 0 if self.neighbors is None else self.neighbors.shape[1],
            "neighbors": [] if self.neighbors is None else self.neighbors.ravel().tolist(),
            "scores": [] if thousandths is None else _thousandths(thousandths),
            "rows": [
                [int(row.query), row.neighbors.tolist(), _thousandths(row.similarities)]
                for row in self.rows
            ],
            "duplicates": None if self.duplicates is None else _lists(self.duplicates),
            "outliers": np.asarray(self.outliers, "int64").tolist(),
            "outlierScores": _thousandths(self.outlier_similarities),
            "clusters": _lists(self.clusters),
            "map": None if self.positions is None else map_steps(self.positions),
            **self.files,
        }
        return f"const PAGE = {json_for_html(page)};\n"


def json_for_html(value: Any) -> str:
    """JSON in ASCII without ``<``, ``>`` and ``&``, so that no text in it ends a script."""
    text = json.dumps(value, separators=(",", ":"))
    for sign in "<>&":  # outside of strings, JSON has none of them
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def class_texts(labels: np.ndarray | None, names: Sequence[str] | None) -> list[str]:
    """What to call each class, printable."""
    count = 0 if labels is None or not len(labels) else int(labels.max()) + 1
    texts = [] if labels is None or names is None else [printable(str(name)) for name in names]
    return texts + [str(label) for label in range(len(texts), count)]


def map_steps(positions: np.ndarray) -> list[int]:
    """Coordinates as integers ``x, y, x, y, ...``, of which the larger range is the whole."""
    low = positions.min(axis=0)
    extent = float((positions.max(axis=0) - low).max()) or 1.0
    return np.round((positions - low) * (MAP_STEPS / extent)).astype(int).ravel().tolist()


def _lists(groups: Sequence[np.ndarray]) -> list[list[int]]:
    return [np.asarray(group).tolist() for group in groups]


def _thousandths(similarities: Sequence[float] | np.ndarray) -> list[int]:
    return np.round(1000 * np.asarray(similarities, "float64")).astype(int).ravel().tolist()
