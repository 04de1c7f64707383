"""Exact search on a CPU: screened in low precision, decided in float32."""

import time
from functools import cache

import torch
from torch.nn.functional import linear, pad

from instdisc_torch.fused import sampled_product

# A block's hits are scored one by one while they are fewer than this share of the block.
SPARSE = 1 / 16


class RunningTopK:
    """The ``k`` best rows of each query among the blocks seen so far.

    Once ``k`` rows are known, a row matters only if it beats the worst of them, and few do: of a
    block that follows ``t`` others about ``k / t``. So a block is screened first, by a product in
    a low precision whose largest error is known: what fails by more than that can't be among the
    best. The few that pass are scored in float32. The result is that of a search in float32.

    Args:
        queries: float32 tensor ``(Q, d)``.
        k: how many rows to keep.
    """

    def __init__(self, queries, k):
        self.queries = queries
        self.k = k
        self.scores = queries.new_empty(len(queries), 0)
        self.indices = torch.empty(len(queries), 0, dtype=torch.int64)
        self.low = screening_dtype()
        lanes = 8 // self.low.itemsize
        self.padding = -len(queries) % lanes
        self.low_queries = pad(queries.to(self.low), (0, 0, 0, self.padding))
        self.lengths = queries.norm(dim=1)
        self.signs = torch.full((lanes,), -0.0, dtype=self.low).view(torch.int64).item()

    def see(self, rows, start):
        """Take in float32 ``rows`` ``(R, d)``, whose first has the index ``start``."""
        hits = self._hits(rows) if self.scores.shape[1] == self.k else None
        if hits is None:
            scores = self.queries @ rows.T
            indices = torch.arange(start, start + len(rows)).expand_as(scores)
        else:
            scores, indices = self._scored(rows, *hits)
            indices = indices + start
        scores = torch.cat([self.scores, scores], dim=1)
        indices = torch.cat([self.indices, indices], dim=1)
        self.scores, chosen = scores.topk(min(self.k, scores.shape[1]), sorted=False)
        self.indices = indices.gather(1, chosen)

    def best(self):
        """Scores and int32 indices ``(Q, k)``, best first."""
        scores, order = self.scores.sort(dim=1, descending=True)
        return scores, self.indices.gather(1, order).int()

    def _hits(self, rows):
        """Rows and queries whose score may beat the query's worst; None where they are many.

        The bound to beat is the bias of the product, so that a score that passes has no minus sign;
        four signs are looked at together, as one integer.
        """
        epsilon, width = torch.finfo(self.low).eps, rows.shape[1]
        error = 1.25 * epsilon + width * torch.finfo(torch.float32).eps
        bound = self.scores.amin(dim=1) - error * self.lengths * rows.norm(dim=1).max()
        bound = bound - epsilon * bound.abs()
        bias = pad(-bound, (0, self.padding), value=-torch.inf).to(self.low)
        margins = linear(rows.to(self.low), self.low_queries, bias)
        words = margins.view(torch.int64).bitwise_and(self.signs).ne_(self.signs)
        row, word = words.nonzero(as_tuple=True)
        if len(row) > SPARSE * words.numel():
            return None
        lanes = torch.arange(8 // self.low.itemsize)
        query = len(lanes) * word[:, None] + lanes
        passed = margins[row[:, None], query] >= 0
        return row[:, None].expand_as(query)[passed], query[passed]

    def _scored(self, rows, row, query):
        """The hits that do beat their query's worst, one line a query, padded with minus infinity.

        Args:
            row, query: the hits, in the order of their rows.
        """
        starts = torch.bincount(row, minlength=len(rows)).cumsum(0)
        scores = sampled_product(rows, self.queries, pad(starts, (1, 0)), query)
        better = scores > self.scores.amin(dim=1)[query]
        row, query, scores = row[better], query[better], scores[better]
        query, order = query.sort(stable=True)
        counts = torch.bincount(query, minlength=len(self.queries))
        column = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        shape = len(self.queries), int(counts.max())
        line = scores.new_full(shape, -torch.inf)
        line[query, column] = scores[order]
        indices = torch.zeros(shape, dtype=torch.int64)
        indices[query, column] = row[order]
        return line, indices


@cache
def screening_dtype():
    """bfloat16 where this processor multiplies it faster than float32, else float32."""
    seconds = {}
    for dtype in (torch.bfloat16, torch.float32):
        rows, queries = torch.ones(2048, 128, dtype=dtype), torch.ones(256, 128, dtype=dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            linear(rows, queries)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return min(seconds, key=lambda dtype: seconds[dtype])
