"""Pairs of images that are nearly the same, and the groups that they form."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from instdisc_core.index.all_nearest import all_nearest
from instdisc_core.types import SearchResult
from instdisc_core.validation import require, require_number

DEFAULT_THRESHOLD = 0.5
RANK = 5  # the nearest other image whose distance is the unit of distances around an image
FLOOR = 0.25  # of the median of these units: so many copies of an image do not hide each other
FEW, MANY = 16, 128  # neighbors that are looked at: of every image, and of those with more copies
MOST = 2**25  # pairs, which take some gigabytes
BLOCK = 4096  # images whose pairs are looked at together
SLACK = 1e-5  # more than a search rounds; the distances of its pairs are computed again


class NearDuplicates(NamedTuple):
    """Images that are nearly the same.

    Attributes:
        pairs: integers ``(p, 2)``, the smaller index first; the nearest pair first.
        distances: of each pair, relative to those around its images, float32 ``(p,)``.
        similarities: cosine of each pair, float32 ``(p,)``.
        groups: arrays of two or more indices that pairs connect, each sorted, the largest first.
    """

    pairs: np.ndarray
    distances: np.ndarray
    similarities: np.ndarray
    groups: list[np.ndarray]


def near_duplicates(
    rows: np.ndarray, threshold: float, neighbors: Callable[[int], SearchResult]
) -> NearDuplicates:
    """All pairs of rows that are near to each other for where they are.

    With ``s`` the cosine, ``r_i = 1 - s`` from row ``i`` to its fifth nearest other row, but at
    least a quarter of the median of all ``r``, a pair is near if

        1 - s_ij <= threshold * (r_i + r_j) / 2

    Without the quarter, one of the two would be among the five nearest of the other. So a pair that
    is not among the 16 nearest of either has the quarter at both ends, and all that is nearer to
    one of them is near too. Rows whose 16 nearest are all near are therefore compared with each
    other again, up to their 128 nearest. The memory in use grows with the number of rows, and not
    with its square.

    Args:
        rows: unit rows ``(n, embedding_dim)``, float32.
        threshold: in (0, 1].
        neighbors: from ``k`` to the ``k`` nearest other rows of all rows.

    Raises:
        ValueError: ``threshold`` out of its range, or so many pairs that they take gigabytes.
    """
    require_number("threshold", threshold, 0, 1, open_below=True, open_above=False)
    n = len(rows)
    pairs, units = np.empty((0, 2), "int64"), np.ones(n)
    if n > 1:
        codes, units = _candidates(rows, threshold, neighbors)
        pairs = np.stack(np.divmod(codes, n), axis=1)
    cosines, limits = _cosines(rows, pairs), units[pairs].mean(axis=1)
    distances = np.maximum(1 - cosines, 0)
    kept = distances <= threshold * limits
    pairs, cosines, limits, distances = (x[kept] for x in (pairs, cosines, limits, distances))
    distances = distances / np.where(distances > 0, limits, 1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distances))
    return NearDuplicates(
        pairs[order],
        distances[order].astype("float32"),
        cosines[order].astype("float32"),
        _groups(pairs, n),
    )


def _candidates(
    rows: np.ndarray, threshold: float, neighbors: Callable[[int], SearchResult]
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs ``(i, j)`` as sorted numbers ``i * n + j``, and the unit of distance of each row."""
    n = len(rows)
    few, rank = min(FEW, n - 1), min(RANK, n - 1)
    scores, others = neighbors(few)
    units = np.maximum(1 - scores[:, rank - 1], 0).astype("float64")
    units = np.maximum(units, max(FLOOR * np.median(units), SLACK))  # 0 where most have copies
    codes: list[np.ndarray] = []

    def add(images: np.ndarray, scores: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
        crowded = []
        for start in range(0, len(images), BLOCK):
            part = slice(start, start + BLOCK)
            near = 1 - scores[part] <= SLACK + threshold * (
                (units[images[part], None] + units[others[part]]) / 2
            )
            first = np.repeat(images[part], near.sum(axis=1))
            second = others[part][near].astype("int64")
            codes.append(np.unique(np.minimum(first, second) * n + np.maximum(first, second)))
            crowded.append(images[part][near.all(axis=1)])
            if sum(map(len, codes)) > MOST:  # a pair of two blocks is in both
                codes[:] = [np.unique(np.concatenate(codes))]
                require(
                    len(codes[0]) <= MOST,
                    f"threshold={threshold}, by which more than {MOST:,} pairs are nearly the same",
                    "fewer pairs",
                    "Leave out equal images, or take a smaller threshold.",
                )
        return crowded

    crowd = np.concatenate(add(np.arange(n), scores, others))
    if few < n - 1 and len(crowd) > 1:
        least = 1 - threshold * units.min() - 2 * SLACK
        scores, others = all_nearest(rows[crowd], min(MANY, len(crowd) - 1), least)
        add(crowd, scores, crowd[others])
    return np.unique(np.concatenate(codes)), units


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
