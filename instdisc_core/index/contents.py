"""What a page of an index shows."""

from typing import Any

import numpy as np

from instdisc_core.data import ImageSource
from instdisc_core.evaluation import layout
from instdisc_core.page import Contents

LEAST = 4  # images, for t-SNE


def page_contents(
    index: Any,
    images: ImageSource,
    title: str,
    k: int,
    threshold: float,
    num_outliers: int,
    num_clusters: int,
    positions: np.ndarray | None,
    seed: int,
) -> Contents:
    """Everything that the page of an EmbeddedImages shows; see its ``save_page``."""
    n = len(index)
    found = index.neighbors(min(k, n - 1)) if n > 1 else None
    odd = index.outliers(min(num_outliers, n), min(5, n - 1)) if n > 1 else None
    if positions is None and n >= LEAST:
        positions = layout(index.rows, seed=seed)
    return Contents(
        title=title,
        names=index.names,
        labels=images.labels,
        class_names=images.class_names,
        neighbors=None if found is None else found.indices,
        similarities=None if found is None else found.scores,
        duplicates=index.near_duplicates(threshold).groups,
        outliers=() if odd is None else odd.indices,
        outlier_similarities=() if odd is None else odd.similarities,
        clusters=typical_first(index, num_clusters, seed) if n > 1 else (),
        positions=positions,
    )


def typical_first(index: Any, num_clusters: int, seed: int = 0) -> list[np.ndarray]:
    """The images of each cluster, the nearest to its mean first; no cluster is empty.

    Args:
        index: an EmbeddedImages.
        num_clusters: at most.
        seed: of the clusters.
    """
    rows = index.rows
    labels = index.clusters(min(num_clusters, len(rows)), seed).labels
    groups = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    return [
        group[np.argsort(-(rows[group] @ rows[group].mean(axis=0)), kind="stable")]
        for group in groups
        if len(group)
    ]
