"""Vectors of length 1."""

import math

from keras import ops

from instdisc_core.types import Tensor

SMALLEST_SQUARE = 1e-14  # of a length; below, a vector has no direction


def unit(array: Tensor, axis: int = -1) -> Tensor:
    """The array divided by its lengths along an axis; zeros stay and have a finite gradient.

    ``ops.normalize`` gives NaN gradients there under PyTorch.

    Args:
        array: float tensor of any shape.
        axis: along which lengths are taken; -1 makes unit rows, 0 unit columns.

    Returns:
        Tensor of the same shape.

    Example:
    ```python
    from instdisc_core.normalization import unit

    rows = unit(keras.ops.ones((2, 4)))  # 0.5 everywhere
    ```
    """
    squares = ops.sum(ops.square(array), axis=axis, keepdims=True)
    return array * ops.rsqrt(ops.maximum(squares, SMALLEST_SQUARE))


def has_direction(rows: Tensor) -> Tensor:
    """Which rows ``(K, d)`` can be unit rows: neither zero, nor of infinite length, nor NaN."""
    squares = ops.sum(ops.square(rows), axis=1)
    return ops.logical_and(squares > 0, squares < math.inf)
