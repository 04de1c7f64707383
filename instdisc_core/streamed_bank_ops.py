"""BankOps for rows in the host's memory or a file: blocks and chosen rows go to the device."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from einops import rearrange
from keras import ops

from instdisc_core.bank_ops import GATHER_ELEMENTS, BankOps
from instdisc_core.host_rows import HostRows, stored_form
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.registry import get_bank_ops
from instdisc_core.sharded_rows import ShardedRows
from instdisc_core.types import Attention, SearchResult, Tensor


class StreamedBankOps(BankOps):
    """The primitives over ``HostRows``, out of those of the active framework over blocks of them.

    ``attend`` and ``top_k`` bring one block of rows after the other to the device, as it is stored,
    and merge the results. ``scores`` and ``combine`` bring the chosen rows. ``update_rows`` writes
    in place. Inside a step that TensorFlow or JAX compiles, the rows are read and written by calls
    of the host in the order of the step, see ``BankOps.on_host``, and what is computed from them
    is ``BankOps``'s. Any other bank goes to the framework's own primitives unchanged.

    Args:
        device_ops: the BankOps that computes.
        block_rows: how many rows are brought to the device at a time.

    Example:
    ```python
    from instdisc_core.streamed_bank_ops import StreamedBankOps

    bank = MemoryBank(1000, 128, dtype="int8", storage="host")
    assert isinstance(bank.bank_ops, StreamedBankOps)
    ```
    """

    def __init__(self, device_ops: BankOps, block_rows: int = 2**16) -> None:
        self.device_ops, self.block_rows = device_ops, block_rows
        self.keras_backend = device_ops.keras_backend
        self.calls_host_from_xla = device_ops.calls_host_from_xla
        self.attend_rows = self.search_rows = 2**14  # of a compiled step

    def rows(self, bank: Any, indices: Tensor) -> Tensor:
        """See ``BankOps.rows``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.rows(bank, indices)
        values, *scale = self._chosen(bank, indices)
        rows = ops.cast(values, "float32")
        return rows * scale[0] if scale else rows

    def scores(self, features: Tensor, bank: Any, indices: Tensor) -> Tensor:
        """See ``BankOps.scores``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.scores(features, bank, indices)
        if self.device_ops.is_compiling():
            return super().scores(features, bank, indices)
        return self._of_chosen(self.device_ops.scores, features, bank, indices)

    def combine(self, weights: Tensor, bank: Any, indices: Tensor) -> Tensor:
        """See ``BankOps.combine``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.combine(weights, bank, indices)
        if self.device_ops.is_compiling():
            return super().combine(weights, bank, indices)
        return self._of_chosen(self.device_ops.combine, weights, bank, indices)

    def attend(self, features: Tensor, bank: Any, temperature: float) -> Attention:
        """See ``BankOps.attend``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.attend(features, bank, temperature)
        if self.device_ops.is_compiling():
            return super().attend(features, bank, temperature)
        log_z, mean = None, None
        for _, block in self._blocks(bank):
            new_log_z, new_mean = self.device_ops.attend(features, block, temperature)
            if log_z is None:
                log_z, mean = new_log_z, new_mean
                continue
            total = ops.logaddexp(log_z, new_log_z)
            mean = mean * ops.exp(log_z - total)[:, None]
            mean = mean + new_mean * ops.exp(new_log_z - total)[:, None]
            log_z = total
        return Attention(log_z, mean)

    def update_rows(self, bank: Any, indices: Tensor, rows: Tensor, moves: Tensor) -> None:
        """See ``BankOps.update_rows``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.update_rows(bank, indices, rows, moves)
        stored = stored_form(rows, bank.dtype)
        self.device_ops.on_host(bank.write, [], indices, moves, *stored)
        return None

    def top_k(self, features: Tensor, bank: Any, k: int) -> SearchResult:
        """See ``BankOps.top_k``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.top_k(features, bank, k)
        if self.device_ops.is_compiling() or features.shape[0] == 0:
            return super().top_k(features, bank, k)
        best, where = None, None
        for start, block in self._blocks(bank):
            scores, found = self.device_ops.top_k(features, block, min(k, block.shape[0]))
            found = ops.cast(found, "int32") + start
            if best is None:
                best, where = scores, found
                continue
            best, where = ops.concatenate([best, scores], 1), ops.concatenate([where, found], 1)
            best, chosen = ops.top_k(best, min(k, best.shape[1]))
            where = ops.take_along_axis(where, ops.cast(chosen, "int32"), axis=1)
        return SearchResult(best, where)

    def top_k_of_first(self, features: Tensor, bank: Any, k: int, count: Tensor) -> SearchResult:
        """See ``BankOps.top_k_of_first``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.top_k_of_first(features, bank, k, count)
        return super().top_k_of_first(features, bank, k, count)

    def require_writable(self) -> None:
        """See ``BankOps.require_writable``."""
        self.device_ops.require_writable()

    def settle(self) -> None:
        """See ``HostCalls.settle``."""
        self.device_ops.settle()

    def dump(self, bank: Any) -> list[np.ndarray]:
        """See ``BankOps.dump``; of HostRows the storage itself, not a copy, and flushed."""
        if not isinstance(bank, HostRows):
            return self.device_ops.dump(bank)
        self.settle()
        bank.flush()
        return bank.block(0, bank.shape[0])

    def load(self, bank: Any, arrays: Sequence) -> None:
        """See ``BankOps.load``."""
        if not isinstance(bank, HostRows):
            return self.device_ops.load(bank, arrays)
        self.settle()
        bank.load(arrays)
        return None

    def _blocks(self, bank: HostRows) -> Any:
        """The start of each block of rows, and the block on the device."""
        self.settle()
        for start in range(0, bank.shape[0], self.block_rows):
            arrays = bank.block(start, start + self.block_rows)
            yield start, _bank_of([self.device_ops.from_host(np.asarray(a)) for a in arrays])

    def _chosen(self, bank: HostRows, indices: Tensor) -> list[Tensor]:
        """Chosen rows as they are stored, on the device."""
        shape = tuple(indices.shape)
        specs = [((*shape, array.shape[1]), str(array.dtype)) for array in bank.arrays]
        return self.device_ops.on_host(bank.read, specs, indices)

    def _of_chosen(self, product: Any, left: Tensor, bank: HostRows, indices: Tensor) -> Tensor:
        """``product`` of each image and a small table: the rows of some images at a time."""
        if len(indices.shape) == 1:
            table = _bank_of(self._chosen(bank, indices))
            return product(left, table, ops.arange(indices.shape[0], dtype="int32"))
        batch, count = indices.shape
        size = max(1, GATHER_ELEMENTS // max(1, count * bank.shape[1]))
        results = []
        for start in range(0, max(batch, 1), size):
            some = indices[start : start + size]
            table = _bank_of(self._chosen(bank, rearrange(some, "image row -> (image row)")))
            places = ops.reshape(ops.arange(math.prod(some.shape), dtype="int32"), some.shape)
            results.append(product(left[start : start + size], table, places))
        return results[0] if len(results) == 1 else ops.concatenate(results)


def bank_ops_for(rows: Any, backend: str | BankOps | None = None) -> BankOps:
    """The BankOps that reads these rows: see ``registry.get_bank_ops``; around it for HostRows.

    Args:
        rows: in any form; ``ShardedRows`` know their own.
        backend: see ``registry.get_bank_ops``.

    Example:
    ```python
    from instdisc_core.streamed_bank_ops import bank_ops_for

    queries = keras.ops.convert_to_tensor(features)
    scores, neighbors = bank_ops_for(bank.rows).top_k(queries, bank.rows, k=3)
    ```
    """
    if isinstance(rows, ShardedRows):
        return rows.bank_ops
    bank_ops = get_bank_ops(backend)
    plain = not isinstance(rows, HostRows) or isinstance(bank_ops, StreamedBankOps)
    return bank_ops if plain else StreamedBankOps(bank_ops)


def _bank_of(tensors: Sequence[Tensor]) -> Tensor | QuantizedRows:
    """Rows, and their scales if there are any, as a bank that the framework computes with."""
    return QuantizedRows(*tensors) if len(tensors) == 2 else tensors[0]
