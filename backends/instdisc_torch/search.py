"""Exact search on a CPU for many queries: screened in low precision, decided in float32."""

import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from instdisc_torch.fused import sampled_product

Read: TypeAlias = Callable[[int, int], Tensor]

# Queries are padded to a multiple of this, so that their signs fill eight 64-bit integers.
GROUP = 32
# The largest share of a block that may pass the screen; if more passes, the whole block is scored.
SPARSE = 1 / 8
# At most so many blocks are screened against the same bounds, and GROWTH rows seen for each row.
STRETCH = 8
GROWTH = 2


def top_k(
    queries: Tensor, read: Read, num_rows: int, k: int, block_rows: int
) -> tuple[Tensor, Tensor]:
    """The ``k`` best rows of each query.

    Once ``k`` rows are known, a row matters only if it has a higher score than the worst of them.
    Few have: about ``k r / t`` of the next ``r`` rows after ``t``. So rows are screened first, by a
    product in low precision, whose largest error is known: a row that fails by more than this error
    cannot be among the best. The few that pass are scored in float32. The result is the same as
    that of a search in float32.

    Args:
        queries: float32 tensor ``(Q, d)``.
        read: function of ``start`` and ``stop`` that returns float32 rows ``(stop - start, d)``.
        num_rows: how many rows there are.
        k: how many to return, at most ``num_rows``.
        block_rows: how many rows are screened at a time.

    Returns:
        Scores ``(Q, k)``, best first, and int32 indices.
    """
    best = Best(queries, k)
    seen = 0
    while seen < num_rows:
        blocks = min(STRETCH, max(1, seen // (GROWTH * block_rows)))
        stop = min(num_rows, seen + max(blocks * block_rows, k - seen))
        cuts = [*range(seen, stop, block_rows), stop]
        parts = list(pairwise(cuts))
        hits = best.screen(read, parts) if seen else None
        if hits is None:
            for start, end in parts if seen else [(seen, stop)]:
                best.take_all(read(start, end), start)
        else:
            best.take(read(seen, stop), seen, hits)
        seen = stop
    return best.sorted()


class Best:
    """The best rows so far, for each query: ``scores`` and ``indices``, both ``(Q, k)``."""

    def __init__(self, queries: Tensor, k: int):
        self.queries = queries
        self.k = k
        self.scores = queries.new_empty(len(queries), 0)
        self.indices = torch.empty(len(queries), 0, dtype=torch.int64)
        self.lengths = queries.norm(dim=1)
        self.low = screening_dtype()
        self.padding = -len(queries) % GROUP
        self.width = len(queries) + self.padding
        self.low_queries = pad(queries.to(self.low), (0, 0, 0, self.padding)).T
        minus = torch.full((8 // self.low.itemsize,), -0.0, dtype=self.low)
        self.minus = int(minus.view(torch.int64).item())

    def screen(self, read: Read, parts: Sequence[tuple[int, int]]) -> Tensor | None:
        """Which rows may beat which query's worst; None if they are many or not finite.

        The rows are those from the first part's start to the last part's end. A hit of row ``r``
        and query ``q`` is the number ``r * width + q``.
        """
        worst = self.scores.amin(dim=1)
        size = max(end - start for start, end in parts)
        margins = torch.empty(size, self.width, dtype=self.low)
        hits = []
        for start, end in parts:
            rows = read(start, end)
            bound = self._bound(rows, worst)
            if not bound.isfinite().all():
                return None
            some = margins[: end - start]
            bias = pad(-bound, (0, self.padding), value=-math.inf).to(self.low)
            torch.addmm(bias, rows.to(self.low), self.low_queries, out=some)
            passed = self._positive(some)
            if len(passed) > SPARSE * some.numel():
                return None
            hits.append(passed + (start - parts[0][0]) * self.width)
        return torch.cat(hits)

    def take(self, rows: Tensor, first: int, hits: Tensor) -> None:
        """Score the hits among these rows, the first of which has the index ``first``."""
        row = hits // self.width
        query = hits - row * self.width
        starts = pad(torch.bincount(row, minlength=len(rows)).cumsum(0), (1, 0))
        scores = sampled_product(rows, self.queries, starts, query)
        better = (scores > self.scores.amin(dim=1)[query]).nonzero()[:, 0]
        counts = torch.bincount(query[better], minlength=len(self.queries))
        widest = int(counts.max())
        if widest > self.k:  # only its best k count: rows may be sorted by their scores
            better = better[scores[better].argsort(descending=True)]
        query, order = query[better].sort(stable=True)
        line = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        better, query, line = (x[line < self.k] for x in (better[order], query, line))
        shape = len(self.queries), min(widest, self.k)
        at = query * shape[1] + line
        self._merge(
            torch.full(shape, -math.inf).put_(at, scores[better]),
            torch.zeros(shape, dtype=torch.int64).put_(at, row[better] + first),
        )

    def take_all(self, rows: Tensor, first: int) -> None:
        """Score every one of these rows."""
        scores, chosen = (self.queries @ rows.T).topk(min(self.k, len(rows)), sorted=False)
        self._merge(scores, chosen + first)

    def sorted(self) -> tuple[Tensor, Tensor]:
        """Scores and int32 indices ``(Q, k)``, best first."""
        scores, order = self.scores.sort(dim=1, descending=True)
        return scores, self.indices.gather(1, order).int()

    def _bound(self, rows: Tensor, worst: Tensor) -> Tensor:
        """The lowest score in low precision with which a row may still beat the worst.

        It is below the worst by the largest error of a product in low precision, and is itself
        rounded down. It is the bias of the product, so that a score below it gives a minus sign.
        """
        epsilon = torch.finfo(self.low).eps
        error = 1.25 * epsilon + rows.shape[1] * torch.finfo(torch.float32).eps
        bound = worst - error * self.lengths * rows.norm(dim=1).max()
        return bound - epsilon * bound.abs()

    def _positive(self, margins: Tensor) -> Tensor:
        """The flat positions of elements without a minus sign. Overwrites the margins.

        Groups of queries without any such element are skipped.
        """
        integers = margins.view(torch.int64).bitwise_and_(self.minus)
        group = integers.ne(self.minus).view(torch.int64).flatten().nonzero()[:, 0]
        size = 64 // self.low.itemsize  # elements in the eight integers of a group
        passed = margins.view(-1, size).index_select(0, group).signbit().logical_not_()
        position = passed.flatten().nonzero()[:, 0]
        return group[position // size] * size + position % size

    def _merge(self, scores: Tensor, indices: Tensor) -> None:
        scores = torch.cat([self.scores, scores], dim=1)
        indices = torch.cat([self.indices, indices], dim=1)
        self.scores, chosen = scores.topk(min(self.k, scores.shape[1]), sorted=False)
        self.indices = indices.gather(1, chosen)


@cache
def screening_dtype() -> torch.dtype:
    """bfloat16 where this processor multiplies it faster than float32, else float32."""
    seconds = {}
    for dtype in (torch.bfloat16, torch.float32):
        rows, queries = torch.ones(8192, 128, dtype=dtype), torch.ones(128, 512, dtype=dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            torch.mm(rows, queries)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return min(seconds, key=lambda dtype: seconds[dtype])
