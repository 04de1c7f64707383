"""Pairs of images that are nearly the same, and the groups that they form."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from instdisc_core.types import SearchResult
from instdisc_core.validation import require_number

DEFAULT_THRESHOLD = 0.9
FEW, MANY = 16, 128  # neighbors that are looked at: of every image, and of those with more copies
BLOCK = 4096  # images that are searched for at a time
SLACK = 1e-4  # more than a search rounds; the similarities of its pairs are computed again


class NearDuplicates(NamedTuple):
    """Images that are nearly the same.

    Attributes:
        pairs: integers ``(p, 2)``, the smaller index first; the most similar pair first.
        similarities: cosine of each pair, float32 ``(p,)``.
        groups: arrays of two or more indices that pairs connect, each sorted, the largest first.
    """

    pairs: np.ndarray
    similarities: np.ndarray
    groups: list[np.ndarray]


def near_duplicates(
    rows: np.ndarray, threshold: float, search: Callable[[np.ndarray, int], SearchResult]
) -> NearDuplicates:
    """All pairs of rows whose cosine is at least ``threshold``.

    Every row is compared with its 16 nearest, and with its 128 nearest if all of these reach the
    threshold. So the memory in use grows with the number of rows, and not with its square, and of
    a group of more than 129 images some pairs are left out.

    Args:
        rows: unit rows ``(n, embedding_dim)``, float32.
        threshold: in [-1, 1].
        search: from indices of rows and ``k`` to the ``k`` nearest other rows.
    """
    require_number("threshold", threshold, -1, 1, open_above=False)
    n, codes = len(rows), [np.empty(0, "int64")]
    for start in range(0, n if n > 1 else 0, BLOCK):
        block = np.arange(start, min(start + BLOCK, n))
        for most in (FEW, MANY):
            k = min(most, n - 1)
            scores, neighbors = search(block, k)
            near = scores >= threshold - SLACK
            full = near.all(axis=1) if k < min(MANY, n - 1) else np.zeros(len(block), bool)
            done = near & ~full[:, None]
            first, second = np.repeat(block, done.sum(axis=1)), neighbors[done].astype("int64")
            codes.append(np.minimum(first, second) * n + np.maximum(first, second))
            block = block[full]
            if not len(block):
                break
    pairs = np.stack(np.divmod(np.unique(np.concatenate(codes)), max(n, 1)), axis=1)
    cosines = _cosines(rows, pairs)
    kept = cosines >= threshold
    pairs, cosines = pairs[kept], cosines[kept]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -cosines))
    return NearDuplicates(pairs[order], cosines[order].astype("float32"), _groups(pairs, n))


def _cosines(rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The inner products of pairs of rows, in float64."""
    cosines = np.empty(len(pairs))
    for start in range(0, len(pairs), BLOCK):
        left, right = (rows[side].astype("float64") for side in pairs[start : start + BLOCK].T)
        cosines[start : start + BLOCK] = np.sum(left * right, axis=1)
    return cosines


def _groups(pairs: np.ndarray, n: int) -> list[np.ndarray]:
    """The connected components of more than one index."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return []
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: (-len(part), part[0]))
