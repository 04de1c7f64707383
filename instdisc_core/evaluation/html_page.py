"""One HTML file that shows queries and their neighbors, images included."""

from typing import Any

import numpy as np

from instdisc_core.page import Contents, NeighborRow, encoded, one_file


def page_of_rows(found: Any, title: str) -> str:
    """The page of a Retrieval: one row for each query, and every image that it shows once."""
    neighbors, asked = np.unique(found.neighbors), np.unique(found.indices)
    if found.queries is found.gallery:
        asked = np.setdiff1d(asked, neighbors)
    shown = [(found.gallery, i) for i in neighbors] + [(found.queries, i) for i in asked]
    places = {(id(source), i): place for place, (source, i) in enumerate(shown)}
    rows = [
        NeighborRow(
            places[id(found.queries), query],
            np.array([places[id(found.gallery), i] for i in row]),
            similarities,
        )
        for query, row, similarities in zip(
            found.indices, found.neighbors, found.similarities, strict=True
        )
    ]
    classes, labels = None, None
    if found.labels is not None:
        all_labels = [found.labels.train[neighbors], found.labels.test[asked]]
        classes, labels = np.unique(np.concatenate(all_labels), return_inverse=True)
    contents = Contents(
        title,
        [source.names[i] for source, i in shown],
        labels,
        None if classes is None else classes.tolist(),
        rows=rows,
    )
    return one_file(contents, (encoded(source.thumbnail(int(i))) for source, i in shown))
