"""Types of the public face."""

import os
from typing import Any, Literal, NamedTuple, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the active framework, a ``keras.Variable``, or a NumPy array.

The three frameworks share no base class, and Keras names none: so shapes and dtypes stand in the
docstrings, and a type checker takes anything.
"""

StorageDtype = Literal["float32", "bfloat16", "float16", "int8"]

RowStorage: TypeAlias = Literal["host"] | str | os.PathLike | None
"""Where a bank's rows are: None for the device, the host's memory, or the path of a file."""


class SearchResult(NamedTuple):
    """The rows most similar to each query, best first.

    Attributes:
        scores: float32 ``(queries, k)``, inner products; cosines of unit rows.
        indices: int32 ``(queries, k)``, which rows.
    """

    scores: Tensor
    indices: Tensor


class Attention(NamedTuple):
    """The softmax over all rows of a bank, for each image of a batch.

    Attributes:
        log_z: float32 ``(batch,)``, the logarithm of its normalizer.
        expected_row: float32 ``(batch, embedding_dim)``, the mean row under it.
    """

    log_z: Tensor
    expected_row: Tensor
