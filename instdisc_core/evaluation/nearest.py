"""The rows nearest to each query, without the query's own row."""

import numpy as np
from keras import ops

from instdisc_core.bank_ops import Bank, BankOps
from instdisc_core.sharded_rows import whole_shape
from instdisc_core.streamed_bank_ops import bank_ops_for
from instdisc_core.types import SearchResult, Tensor
from instdisc_core.validation import require, require_count


def nearest(
    features: Tensor,
    rows: Bank,
    k: int,
    own: np.ndarray,
    backend: str | BankOps | None = None,
) -> SearchResult:
    """The ``k`` rows most similar to each query, best first, among all but the query's own.

    Args:
        features: float32 tensor ``(q, embedding_dim)`` of finite unit rows.
        rows: ``(n, embedding_dim)``, finite unit rows; they are read in blocks.
        k: number of neighbors, at most ``n``, or ``n - 1`` where a query has a row of its own.
        own: which row is the query itself, integers ``(q,)``; -1 where none is.
        backend: see ``registry.get_bank_ops``.

    Returns:
        A SearchResult of NumPy arrays ``(q, k)``.

    Raises:
        ValueError: ``k`` out of its range.

    Example:
    ```python
    from instdisc_core.evaluation.nearest import nearest

    rows = keras.ops.convert_to_tensor(embeddings)
    scores, neighbors = nearest(rows[:2], rows, k=3, own=np.arange(2))
    ```
    """
    itself, n = bool(np.any(own >= 0)), whole_shape(rows)[0]
    require_count("k", k)
    require(k + itself <= n, f"k={k}", f"at most {n - itself}")
    found = bank_ops_for(rows, backend).top_k(features, rows, k + itself)
    scores, neighbors = (ops.convert_to_numpy(part) for part in found)
    if itself:
        other = neighbors != own[:, None]
        other[other.all(axis=1), -1] = False  # the query was not found: drop the last neighbor
        shape = len(own), k
        scores, neighbors = scores[other].reshape(shape), neighbors[other].reshape(shape)
    return SearchResult(scores, neighbors)
