"""The nearest other rows of every row, from half of all products."""

import numpy as np
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.types import SearchResult
from instdisc_core.validation import require, require_count

BLOCK = 1024  # rows of a tile of products


def all_nearest(rows: np.ndarray, k: int, least: float = -np.inf) -> SearchResult:
    """The ``k`` other rows most similar to each row, best first.

    A product serves both of its rows, so each pair of blocks is multiplied once. A product matters
    only if it is above the worst of the ``k`` best so far of one of its rows. Rows are read in a
    random order, always the same, so that few are: about ``k / t`` after ``t`` rows. The memory in
    use grows with ``n (embedding_dim + k)``. Of equal products any may be taken.

    Args:
        rows: unit rows ``(n, embedding_dim)``, float32.
        k: number of others, at most ``n - 1``.
        least: smaller cosines are left out.

    Returns:
        A SearchResult of NumPy arrays ``(n, k)``; where fewer than ``k`` reach ``least``, the last
        scores are ``-inf``, and their indices mean nothing.

    Raises:
        ValueError: one row, or ``k`` out of its range.

    Example:
    ```python
    from instdisc_core.index.all_nearest import all_nearest

    scores, neighbors = all_nearest(embeddings, k=3)
    ```
    """
    n = len(rows)
    require(n > 1, "one image", "two or more", "One has no neighbors.")
    require_count("k", k)
    require(k < n, f"k={k}", f"at most {n - 1}")
    order = np.random.default_rng(0).permutation(n)
    rows, best = rows[order], _Best(n, k, least)
    tile = np.empty((BLOCK, BLOCK), "float32")
    for first in range(0, n, BLOCK):
        upper = rows[first : first + BLOCK]
        for second in range(first, n, BLOCK):
            other = rows[second : second + BLOCK]
            products = tile.reshape(-1)[: len(upper) * len(other)].reshape(len(upper), len(other))
            np.matmul(upper, other.T, out=products)
            if first == second:
                np.fill_diagonal(products, -np.inf)
            best.take(products, first, second)
    scores, neighbors = best.sorted(order)
    return SearchResult(scores, neighbors)


def is_on_cpu(backend: str | BankOps | None) -> bool:
    """Whether NumPy is to search: nobody asked for a backend, and the framework has no accelerator.

    Example:
    ```python
    from instdisc_core.index.all_nearest import is_on_cpu

    assert not is_on_cpu("torch")
    ```
    """
    return backend is None and "cpu" in str(getattr(ops.zeros(()), "device", "cpu")).lower()


class _Best:
    """The best others so far of each row: ``scores`` and ``indices``, both ``(n, k)``."""

    def __init__(self, n: int, k: int, least: float) -> None:
        self.scores = np.full((n, k), -np.inf, "float32")
        self.indices = np.zeros((n, k), "int32")
        self.worst = np.full(n, np.nextafter(np.float32(least), np.float32(-np.inf)), "float32")

    def take(self, products: np.ndarray, first: int, second: int) -> None:
        """Take the products of the rows from ``first`` on with those from ``second`` on."""
        height, width = products.shape
        if first == 0:
            self._bound(products, second)
        passed = products > self.worst[first : first + height, None]
        if first != second:
            passed |= products > self.worst[second : second + width]
        upper, other = np.divmod(np.flatnonzero(passed), width)
        scores = products[upper, other]
        self._merge(upper + first, other + second, scores)
        if first != second:
            by_other = np.argsort(other.astype("uint16"), kind="stable")
            self._merge(other[by_other] + second, upper[by_other] + first, scores[by_other])

    def _bound(self, products: np.ndarray, first: int) -> None:
        """Raise the worst of rows from their first products: ``k`` groups have one as good each."""
        k = self.scores.shape[1]
        size = len(products) // (4 * k)
        if size > 1:
            groups = products[: 4 * k * size].reshape(4 * k, size, -1).max(axis=1)
            bound = np.nextafter(np.partition(groups, 3 * k, axis=0)[3 * k], np.float32(-np.inf))
            worst = self.worst[first : first + len(bound)]
            np.maximum(worst, bound, out=worst)

    def _merge(self, rows: np.ndarray, others: np.ndarray, scores: np.ndarray) -> None:
        """Add others with their scores to the lists of rows, which are sorted."""
        better = scores > self.worst[rows]
        rows, others, scores = rows[better], others[better], scores[better]
        if not len(rows):
            return
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        counts = np.diff(starts, append=len(rows))
        touched, k = rows[starts], self.scores.shape[1]
        line = np.repeat(np.arange(len(touched)), counts)
        slot = np.arange(len(rows)) - np.repeat(starts, counts) + k
        shape = len(touched), k + counts.max()
        all_scores, all_others = np.full(shape, -np.inf, "float32"), np.zeros(shape, "int32")
        all_scores[:, :k], all_others[:, :k] = self.scores[touched], self.indices[touched]
        all_scores[line, slot], all_others[line, slot] = scores, others
        chosen = np.argpartition(all_scores, -k, axis=1)[:, -k:]
        found = np.take_along_axis(all_scores, chosen, axis=1)
        self.scores[touched] = found
        self.indices[touched] = np.take_along_axis(all_others, chosen, axis=1)
        self.worst[touched] = np.maximum(self.worst[touched], found[:, 0])

    def sorted(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores, best first, and indices, of the rows and by the numbers before the shuffle."""
        scores, neighbors = np.empty_like(self.scores), np.empty_like(self.indices)
        for start in range(0, len(order), BLOCK):
            part = slice(start, start + BLOCK)
            named = order[self.indices[part]]
            best = np.lexsort((named, -self.scores[part]), axis=1)
            scores[order[part]] = np.take_along_axis(self.scores[part], best, axis=1)
            neighbors[order[part]] = np.take_along_axis(named, best, axis=1)
        return scores, neighbors
