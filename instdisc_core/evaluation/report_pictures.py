"""The pictures of a report."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from instdisc_core.data import ImageSource
from instdisc_core.evaluation.positions import positions_in
from instdisc_core.evaluation.retrieval import retrieve
from instdisc_core.evaluation.tsne import plot_tsne


def draw_pictures(
    folder: Path,
    train: ImageSource,
    test: ImageSource,
    train_rows: np.ndarray,
    test_rows: np.ndarray,
    measures: Collection[str],
    seed: int,
) -> list[Path]:
    """Draw the best and the worst queries, a page of neighbors, and t-SNE of the test images.

    Returns:
        The paths of the files that were written.
    """
    written = []
    if "retrieval" in measures:
        k = min(10, len(train) - bool(np.any(positions_in(train, test) >= 0)))
        found = retrieve(test_rows, test, train_rows, train, k)
        for name, queries in (("best", found.best(8)), ("worst", found.worst(8))):
            written.append(folder / f"retrieval-{name}.png")
            queries.plot(written[-1], f"Queries with the {name} neighbors")
        some = np.linspace(0, len(test) - 1, min(50, len(test))).astype(int)
        written.append(folder / "neighbors.html")
        retrieve(test_rows, test, train_rows, train, k, some).save_html(written[-1])
    if "tsne" in measures and len(test) >= 4:
        written.append(folder / "tsne.png")
        plot_tsne(test_rows, test, written[-1], seed=seed)
    return written
