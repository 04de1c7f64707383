"""How many, which part, and the sums of what belongs to one index."""

from functools import reduce

from keras import ops

from instdisc_core.types import Tensor


def count(condition: Tensor) -> Tensor:
    """How many elements of a boolean tensor are true: int32 ``()``."""
    return ops.sum(ops.cast(condition, "int32"))


def share(condition: Tensor, *counted: Tensor | None) -> Tensor:
    """Which part of the elements that count is true: float32 ``()``; 0 if none counts.

    Args:
        condition: boolean ``(K,)``.
        counted: booleans ``(K,)``, which must all be true; None counts all.
    """
    given = [each for each in counted if each is not None]
    if not given:
        return ops.mean(ops.cast(condition, "float32"))
    counts = reduce(ops.logical_and, given)
    true = ops.sum(ops.cast(ops.logical_and(condition, counts), "float32"))
    return true / ops.maximum(ops.sum(ops.cast(counts, "float32")), 1.0)


def added(indices: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted indices, each with the sum of all rows of that index.

    Args:
        indices: int32 ``(K,)``, at least one.
        rows: float tensor ``(K, d)``.

    Returns:
        Indices ``(K,)`` and sums ``(K, d)``; an index that is given twice is there twice.
    """
    order = ops.argsort(indices)
    indices, rows = ops.take(indices, order), ops.take(rows, order, axis=0)
    is_new = ops.cast(indices[1:] != indices[:-1], "int32")
    group = ops.concatenate([ops.zeros((1,), "int32"), ops.cumsum(is_new)])
    sums = ops.segment_sum(rows, group, num_segments=ops.shape(indices)[0])
    return indices, ops.take(sums, group, axis=0)
