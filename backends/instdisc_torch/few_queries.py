"""Exact search on a CPU for few queries, whose time is mostly that of reading the bank."""

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from instdisc_core import QuantizedRows

Read: TypeAlias = Callable[[int, int], Tensor]

# Scores that are held at a time: 64 MiB.
SCORES = 2**24
# Rows of one product of a batch of products.
GROUP_ROWS = 512
# If more than this share of the rows must be scored again, all rows are.
SPARSE = 1 / 16


def top_k(
    queries: Tensor,
    read: Read,
    num_rows: int,
    k: int,
    block_rows: int,
    quantized: QuantizedRows | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` best rows of each query, in two stages.

    The ``k`` best rows are in the ``k`` chunks of rows with the largest maxima: any other chunk has
    ``k`` rows above its own. So only the maxima of chunks are sorted, and then the scores of these
    chunks. All scores come from few large operations, because each one that several threads share
    ends only when the operating system has run all of them.

    Args:
        queries: float32 tensor ``(Q, d)``.
        read: function of ``start`` and ``stop`` that returns float32 rows ``(stop - start, d)``.
        num_rows: how many rows there are.
        k: how many to return, at most ``num_rows``.
        block_rows: how many rows are read at a time.
        quantized: the same rows as they are stored in int8, and their scales. They are scored by
            products of integers, where the processor has fast ones.

    Returns:
        Scores ``(Q, k)``, best first, and int32 indices.
    """
    found = []
    for some in queries.split(max(1, SCORES // num_rows)):
        result = None
        if quantized and integer_products(queries.shape[1], len(some)):
            result = _top_k_of_integers(some, *quantized, k)
        if result is None:
            scores = some.new_empty(num_rows, len(some))
            for start in range(0, num_rows, block_rows):
                stop = min(num_rows, start + block_rows)
                _product(read(start, stop), some, scores[start:stop])
            result = _top_k_of(scores, k)
        found.append(result)
    scores, indices = zip(*found, strict=True)
    return torch.cat(scores), torch.cat(indices)


def _top_k_of(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each column: values and int32 positions, both ``(Q, k)``."""
    maxima, members, rest = _chunks(scores, k)
    chosen = maxima.topk(k).indices
    positions = (chosen[:, :, None] + members).flatten(1)
    positions = torch.cat([positions, rest.expand(len(maxima), -1)], dim=1)
    values, order = scores.T.gather(1, positions).topk(k)
    return values, positions.gather(1, order).int()


def _chunks(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The maxima of at least ``k`` chunks of rows ``(Q, chunks)``, and where their rows are.

    The rows of chunk ``c`` are ``c + members``. The last result is the few rows in no chunk.
    """
    size = max(1, int((len(scores) / k) ** 0.5 / 2))
    count = len(scores) // size
    maxima = scores[: size * count].view(size, count, -1).amax(dim=0).T.contiguous()
    members = torch.arange(0, size * count, count)
    return maxima, members, torch.arange(size * count, len(scores))


def _top_k_of_integers(
    queries: Tensor, codes: Tensor, scale: Tensor, k: int
) -> tuple[Tensor, Tensor] | None:
    """The ``k`` best rows by products of integers; None if these leave too many rows.

    The queries are rounded to int8. With ``e`` the sum of what is rounded off, the score of row
    ``j`` is off by at most ``127 e scale_j``; no scale is negative. Only a row whose score may be
    as high as the ``k``-th of the lowest possible scores can be among the best. These rows are
    scored in float32.
    """
    step = queries.abs().amax(dim=1) / 127
    step = torch.where(step > 0, step, 1.0)
    rounded = (queries / step[:, None]).round()
    errors = 127 * (queries - step[:, None] * rounded).abs().sum(dim=1)
    product = torch._int_mm(codes, rounded.to(torch.int8).T).float()
    lowest = product.mul_(step).sub_(errors).mul_(scale)
    maxima, members, rest = _chunks(lowest, k)
    worst = maxima.topk(k).values[:, -1]
    largest = 2 * scale.aminmax().max
    found = []
    for query, (highest, low, error) in enumerate(zip(maxima, worst, errors, strict=True)):
        chosen = (highest + largest * error < low).logical_not_().nonzero()  # NaN is not below
        rows = torch.cat([(chosen + members).flatten(), rest])
        possible = lowest[rows, query] + 2 * error * scale[rows, 0]
        rows = rows[(possible < low).logical_not_()]
        if len(rows) > max(k, SPARSE * len(lowest)):
            return None
        values = (codes[rows].float() @ queries[query]) * scale[rows, 0]
        values, order = values.topk(k)
        found.append((values, rows[order].int()))
    best, indices = zip(*found, strict=True)
    return torch.stack(best), torch.stack(indices)


def _product(rows: Tensor, queries: Tensor, scores: Tensor) -> None:
    """Write ``rows @ queries.T``. One query in groups: MKL's plain product with it is slow."""
    even = len(rows) // GROUP_ROWS * GROUP_ROWS if len(queries) == 1 else 0
    if even:
        groups = rows[:even].view(-1, GROUP_ROWS, rows.shape[1])
        query = queries.T.expand(len(groups), -1, 1)
        torch.bmm(groups, query, out=scores[:even].view(-1, GROUP_ROWS, 1))
    if even < len(rows):
        torch.mm(rows[even:], queries.T, out=scores[even:])


@cache
def integer_products(embedding_dim: int, queries: int) -> bool:
    """Whether this processor multiplies integers fast, and right for queries of this shape.

    PyTorch 2.13 computes some products of integers wrongly where ``embedding_dim`` is 1.
    """
    try:
        found = torch.cpu.get_capabilities()
        codes = (torch.arange(64 * embedding_dim).view(64, -1) % 255 - 127).to(torch.int8)
        product = torch._int_mm(codes, codes[:1].expand(queries, -1).T)
    except (AttributeError, RuntimeError):  # a release without them
        return False
    fast = any(found.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    expected = codes.int() @ codes[:1].expand(queries, -1).T.int()
    return fast and torch.equal(product, expected)
