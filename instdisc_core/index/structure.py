"""What a set of embeddings looks like: odd ones, clusters, and a few that stand for all."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from instdisc_core.evaluation import cluster_neighbors
from instdisc_core.types import SearchResult
from instdisc_core.validation import require, require_count

NEIGHBORS = 15  # that say which images belong together


class Outliers(NamedTuple):
    """The images least like any others, the oddest first.

    Attributes:
        indices: integers ``(n,)``.
        similarities: the mean cosine to the nearest other images, float32 ``(n,)``.
    """

    indices: np.ndarray
    similarities: np.ndarray


class ImageClusters(NamedTuple):
    """Clusters of images.

    Attributes:
        labels: the cluster of each image, integers ``(n,)`` from 0; cluster 0 is the largest.
        centers: the image nearest to the mean of each cluster, integers ``(k,)``.
    """

    labels: np.ndarray
    centers: np.ndarray


def clusters(
    rows: np.ndarray, k: int, seed: int, search: Callable[[int], SearchResult]
) -> ImageClusters:
    """Clusters of rows by their neighbors, the largest first.

    Args:
        rows: unit rows ``(n, embedding_dim)``.
        k, seed: of the clusters.
        search: from ``m`` to the ``m`` nearest other rows of every row.
    """
    n = len(rows)
    nearest = search(min(NEIGHBORS, math.isqrt(n))).indices if n > 1 else np.zeros((n, 0), "int32")
    found = cluster_neighbors(nearest, k, seed)
    sizes = np.bincount(found, minlength=k)
    order = np.argsort(-sizes, kind="stable")
    labels = np.argsort(order)[found]
    centers = []
    for label in range(int(np.sum(sizes > 0))):
        members = np.flatnonzero(labels == label)
        mean = rows[members].mean(axis=0)
        centers.append(members[np.argmax(rows[members] @ mean)])
    return ImageClusters(labels, np.array(centers))


def diverse_subset(rows: np.ndarray, n: int) -> np.ndarray:
    """Indices of ``n`` rows such that every row is near to one of them.

    The first is the row nearest to the mean; each further one is the row that is least similar to
    all chosen ones. The largest distance ``|v_i - v_j|`` from a row to the nearest chosen one is at
    most twice the smallest that any choice of ``n`` rows has.

    Source:
        Gonzalez, Theoretical Computer Science 1985; Sener and Savarese, ICLR 2018.
    """
    require_count("n", n)
    require(n <= len(rows), f"n={n}", f"at most the {len(rows)} images")
    chosen = [int(np.argmax(rows @ rows.mean(axis=0)))]
    closest = np.full(len(rows), -np.inf, "float32")  # the largest cosine to a chosen row
    while len(chosen) < n:
        closest = np.maximum(closest, rows @ rows[chosen[-1]])
        closest[chosen[-1]] = np.inf
        chosen.append(int(np.argmin(closest)))
    return np.array(chosen)
