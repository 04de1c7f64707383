"""Rows that are stored in eight bits."""

from typing import NamedTuple

import keras
from keras import ops

from instdisc_core.types import Tensor


class QuantizedRows(NamedTuple):
    """The rows of a bank as int8, with one scale per row: ``v_j = scale_j * values_j``.

    A quantized row has almost the direction of the row and the same length, so that unit rows stay
    unit rows.

    Attributes:
        values: int8 variable or tensor ``(num_rows, embedding_dim)``, in ``[-127, 127]``.
        scale: float32 variable or tensor ``(num_rows, 1)``.

    Example:
    ```python
    rows = QuantizedRows.of(features)
    scores, neighbors = get_bank_ops().top_k(keras.ops.convert_to_tensor(features), rows, k=5)
    ```
    """

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "QuantizedRows":
        """Quantize float rows ``(num_rows, embedding_dim)``.

        The largest element of a row becomes 127 or -127.
        """
        rows = ops.cast(rows, "float32")
        largest = ops.max(ops.abs(rows), axis=-1, keepdims=True)
        rows = rows / ops.where(largest > 0, largest, 1.0)
        values = ops.round(127 * rows)
        length = ops.norm(rows, axis=-1, keepdims=True)
        stored_length = ops.maximum(ops.norm(values, axis=-1, keepdims=True), 1.0)
        return cls(ops.cast(values, "int8"), largest * (length / stored_length))

    @property
    def shape(self) -> tuple[int, int]:
        """``(num_rows, embedding_dim)``."""
        return self.values.shape

    @property
    def dtype(self) -> str:
        """``"int8"``."""
        return keras.backend.standardize_dtype(self.values.dtype)

    def assign(self, rows: Tensor) -> None:
        """Write float rows to both variables."""
        for variable, part in zip(self, self.of(rows), strict=True):
            variable.assign(part)
