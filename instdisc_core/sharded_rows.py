"""Rows of which each rank stores a part."""

from typing import Any

import keras

from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.types import Tensor


class ShardedRows:
    """The rows of a bank, of which this rank stores those from ``start`` to ``stop``.

    It has the shape of all rows. A ``ShardedBankOps`` reads and writes it, and every rank must call
    that together with the same arguments.

    Args:
        local: the rows that this rank stores, a variable or ``QuantizedRows``.
        start: index of the first of them.
        num_rows: how many rows there are on all ranks.
        bank_ops: the ShardedBankOps.

    Example:
    ```python
    from instdisc_core.sharded_rows import ShardedRows

    upper_half = ShardedRows(keras.ops.ones((20, 8)), start=20, num_rows=40)
    assert upper_half.shape == (40, 8)
    ```
    """

    def __init__(
        self, local: Tensor | QuantizedRows, start: int, num_rows: int, bank_ops: Any = None
    ) -> None:
        self.local, self.start, self.num_rows, self.bank_ops = local, start, num_rows, bank_ops

    @property
    def stop(self) -> int:
        """The index after the last row that this rank stores."""
        return self.start + self.local.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """``(num_rows, embedding_dim)``, of the rows of all ranks."""
        return (self.num_rows, self.local.shape[1])

    @property
    def dtype(self) -> str:
        """How the rows are stored."""
        return keras.backend.standardize_dtype(self.local.dtype)

    def assign(self, rows: Tensor) -> None:
        """Write this rank's part of all rows ``(num_rows, embedding_dim)``."""
        self.local.assign(rows[self.start : self.stop])


def parts(bank: Any) -> tuple[Any, ...]:
    """The variables in which a bank is stored here: one, or the two of ``QuantizedRows``."""
    stored = bank.local if isinstance(bank, ShardedRows) else bank
    return tuple(stored) if isinstance(stored, QuantizedRows) else (stored,)


def whole_shape(rows: Any) -> tuple[int, ...]:
    """The shape on one device of a bank or a variable: of all rows, where each device has a part.

    It has no rows that were added so that devices divide it.
    """
    table = rows.values if isinstance(rows, QuantizedRows) else rows
    return tuple(getattr(table, "whole_shape", table.shape))
