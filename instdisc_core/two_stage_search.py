"""The largest scores of a bank, without sorting or storing all scores."""

import math
from collections.abc import Callable
from typing import Any

from einops import rearrange
from keras import ops

from instdisc_core.types import SearchResult, Tensor


def top_k(
    rows: Callable[[Any, Tensor], Tensor],
    scores: Callable[[Tensor, Any, Tensor], Tensor],
    features: Tensor,
    bank: Any,
    k: int,
    block_rows: int,
) -> SearchResult:
    """The ``k`` rows with the largest inner product, in two stages.

    The ``k`` best rows are in the ``k`` chunks of rows with the largest maxima: any other chunk has
    ``k`` rows above its own. So the first stage keeps one score per chunk, and the second scores
    the rows of these chunks again. Of equal scores the lowest index is first.

    Args:
        rows, scores: as in ``BankOps``.
        features: float32 tensor ``(batch, embedding_dim)``.
        bank: what ``rows`` and ``scores`` read, with a shape ``(num_rows, embedding_dim)``.
        k: in ``[1, num_rows]``.
        block_rows: how many rows of the bank are held at a time.

    Returns:
        A SearchResult, each part ``(batch, k)``.

    Example:
    ```python
    from instdisc_core.two_stage_search import top_k
    own = bank.bank_ops
    best, indices = top_k(own.rows, own.scores, keras.ops.ones((1, 128)), bank.rows, 3, 4096)
    ```
    """
    num_rows, batch = bank.shape[0], ops.shape(features)[0]
    chunk = chunk_rows(num_rows, k)
    num_chunks = num_rows // chunk
    blocks = math.ceil(num_chunks * chunk / block_rows)
    size = math.ceil(num_chunks / blocks)
    offsets = ops.arange(size * chunk, dtype="int32")

    def step(block: Tensor, maxima: Tensor) -> Tensor:
        # The last block starts early, and finds some maxima again.
        first = ops.minimum(ops.cast(block * size, "int32"), num_chunks - size)
        s = ops.matmul(features, ops.transpose(rows(bank, first * chunk + offsets)))
        best = ops.max(rearrange(s, "image (chunk row) -> image chunk row", row=chunk), axis=2)
        return ops.slice_update(maxima, (0, first), best)

    maxima = ops.fori_loop(0, blocks, step, ops.zeros((batch, num_chunks)))
    best, chosen = ops.top_k(maxima, k)
    chosen = ops.cast(chosen, "int32")
    if chunk == 1:
        return SearchResult(best, chosen)
    chosen = ops.sort(chosen, axis=1)[:, :, None] * chunk + ops.arange(chunk, dtype="int32")
    chosen = rearrange(chosen, "image chunk row -> image (chunk row)")
    rest = ops.arange(num_chunks * chunk, num_rows, dtype="int32")  # in no chunk: always scored
    rest = ops.broadcast_to(rest, (batch, num_rows - num_chunks * chunk))
    chosen = ops.concatenate([chosen, rest], axis=1)
    best, where = ops.top_k(scores(features, bank, chosen), k)
    return SearchResult(best, ops.take_along_axis(chosen, ops.cast(where, "int32"), axis=1))


def chunk_rows(num_rows: int, k: int) -> int:
    """Rows per chunk: a power of two that balances the work of the two stages.

    The first sorts out ``num_rows / chunk`` maxima, the second gathers ``k * chunk`` rows, and a
    row takes about 8 times as long as a maximum. Chunks of fewer than 4 rows save nothing. There
    are always at least ``k`` chunks.

    Example:
    ```python
    from instdisc_core.two_stage_search import chunk_rows
    assert chunk_rows(1_280_000, 10) == 128
    ```
    """
    chunk = 2 ** round(math.log2(max(1, num_rows / (8 * k))) / 2)
    return chunk if chunk >= 4 else 1
