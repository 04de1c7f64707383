"""Every rank stores a part of the rows, and computes with them for the whole batch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from einops import einsum
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.communicator import Communicator
from instdisc_core.sharded_rows import ShardedRows, parts
from instdisc_core.types import Attention, SearchResult, Tensor
from instdisc_core.validation import require

DUMPED_ROWS = 2**16  # of each rank, gathered at a time


class ShardedBankOps(BankOps):
    """A BankOps for ``ShardedRows``: rank ``r`` of ``R`` stores rows ``r n / R`` and following.

    ``n`` need not be a multiple of ``R``. All ranks must call the same methods with the same
    arguments, and all get the same results. What a rank sends in a step does not depend on ``n``.
    A bank that is not ``ShardedRows`` is read by ``inner``, without the other ranks.

    Args:
        inner: the BankOps of one device.
        communicator: of the ranks.

    Example:
    ```python
    from instdisc_core.devices import ShardedBankOps

    bank_ops = ShardedBankOps(get_bank_ops(), Communicator())
    ```
    """

    def __init__(self, inner: BankOps, communicator: Communicator) -> None:
        self.inner, self.communicator = inner, communicator
        self.keras_backend = inner.keras_backend
        self.attend_rows, self.search_rows = inner.attend_rows, inner.search_rows

    def bounds(self, num_rows: int) -> list[int]:
        """The first row of each rank, and after the last one ``num_rows``.

        Raises:
            ValueError: fewer rows than ranks.
        """
        ranks = self.communicator.size
        require(
            num_rows >= ranks,
            f"a sharded bank of {num_rows} rows on {ranks} ranks",
            "at least one row for each rank",
            "Set sharded=False.",
        )
        return [num_rows * rank // ranks for rank in range(ranks + 1)]

    def own_part(self, num_rows: int) -> slice:
        """Which rows this rank stores."""
        start, stop = self.bounds(num_rows)[self.communicator.rank :][:2]
        return slice(start, stop)

    def rows(self, bank: Any, indices: Tensor) -> Tensor:
        """See ``BankOps.rows``. Each rank adds its own rows to zeros."""
        if not isinstance(bank, ShardedRows):
            return self.inner.rows(bank, indices)
        own, local = _own(bank, indices)
        rows = ops.where(own[..., None], self.inner.rows(bank.local, local), 0.0)
        return self.communicator.all_reduce(rows)

    def scores(self, features: Tensor, bank: Any, indices: Tensor) -> Tensor:
        """See ``BankOps.scores``. Of shared rows, the rows are sent if they are fewer numbers."""
        if not isinstance(bank, ShardedRows):
            return self.inner.scores(features, bank, indices)
        batch, width = features.shape
        if len(indices.shape) == 1 and (batch is None or width < batch):
            rows = self.rows(bank, indices)
            return einsum(features, rows, "image feature, row feature -> image row")
        own, local = _own(bank, indices)
        scores = ops.where(own, self.inner.scores(features, bank.local, local), 0.0)
        return self.communicator.all_reduce(scores)

    def combine(self, weights: Tensor, bank: Any, indices: Tensor) -> Tensor:
        """See ``BankOps.combine``. Each rank adds up its own rows."""
        if not isinstance(bank, ShardedRows):
            return self.inner.combine(weights, bank, indices)
        own, local = _own(bank, indices)
        combined = self.inner.combine(ops.where(own, weights, 0.0), bank.local, local)
        return self.communicator.all_reduce(combined)

    def attend(self, features: Tensor, bank: Any, temperature: float) -> Attention:
        """See ``BankOps.attend``. The softmaxes over each rank's rows are joined."""
        if not isinstance(bank, ShardedRows):
            return self.inner.attend(features, bank, temperature)
        log_z, row = self.inner.attend(features, bank.local, temperature)
        highest = self.communicator.all_reduce(log_z, "max")
        share = ops.exp(log_z - highest)[:, None]
        total = self.communicator.all_reduce(ops.concatenate([share, share * row], axis=1))
        return Attention(highest + ops.log(total[:, 0]), total[:, 1:] / total[:, :1])

    def update_rows(self, bank: Any, indices: Tensor, rows: Tensor, moves: Tensor) -> None:
        """See ``BankOps.update_rows``. Each rank writes its own rows; nothing is sent."""
        if not isinstance(bank, ShardedRows):
            return self.inner.update_rows(bank, indices, rows, moves)
        own, local = _own(bank, indices)
        # What another rank stores repeats an entry of this rank; if there is none, nothing moves.
        position = ops.arange(ops.shape(indices)[0], dtype="int32")
        position = ops.where(own, position, ops.cast(ops.argmax(own), "int32"))
        local, rows, moves = (ops.take(x, position, axis=0) for x in (local, rows, moves))
        moves = ops.logical_and(moves, ops.any(own))
        return self.inner.update_rows(bank.local, local, rows, moves)

    def top_k(self, features: Tensor, bank: Any, k: int) -> SearchResult:
        """See ``BankOps.top_k``. The best rows of each rank are gathered, up to ``k`` of each."""
        if not isinstance(bank, ShardedRows):
            return self.inner.top_k(features, bank, k)
        sizes = [min(k, size) for size in np.diff(self.bounds(bank.num_rows)).tolist()]
        scores, indices = self.inner.top_k(features, bank.local, min(k, bank.stop - bank.start))
        scores, indices = (  # the ranks have different widths, and rows are what can be gathered
            ops.transpose(self.communicator.all_gather(ops.transpose(x), sizes))
            for x in (scores, indices + bank.start)
        )
        best, chosen = ops.top_k(scores, k)
        indices = ops.take_along_axis(indices, ops.cast(chosen, "int32"), axis=1)
        return SearchResult(best, indices)

    def write(self, variable: keras.Variable, indices: Tensor, values: Tensor) -> None:
        """See ``BankOps.write``."""
        self.inner.write(variable, indices, values)

    def require_writable(self) -> None:
        """See ``BankOps.require_writable``."""
        self.inner.require_writable()

    def dump(self, bank: Any) -> list[np.ndarray]:
        """See ``BankOps.dump``: the rows of all ranks, so that a file is that of one device."""
        if not isinstance(bank, ShardedRows):
            return self.inner.dump(bank)
        return [self._gathered(bank, variable) for variable in parts(bank.local)]

    def load(self, bank: Any, arrays: Sequence[np.ndarray]) -> None:
        """See ``BankOps.load``. Each rank takes its own rows."""
        if isinstance(bank, ShardedRows):
            arrays = [array[bank.start : bank.stop] for array in arrays]
            bank = bank.local
        self.inner.load(bank, arrays)

    def _gathered(self, bank: ShardedRows, variable: keras.Variable) -> np.ndarray:
        """A variable of the rows, of all ranks, some rows of each at a time."""
        bounds = self.bounds(bank.num_rows)
        lengths = np.diff(bounds)
        blocks = []
        for done in range(0, int(lengths.max()), DUMPED_ROWS):
            sizes = np.clip(lengths - done, 0, DUMPED_ROWS).tolist()
            own = ops.convert_to_tensor(variable)[done : done + DUMPED_ROWS]
            gathered = ops.convert_to_numpy(self.communicator.all_gather(own, sizes))
            blocks.append(np.split(gathered, np.cumsum(sizes)[:-1]))
        return np.concatenate([block[rank] for rank in range(len(lengths)) for block in blocks])


def _own(bank: ShardedRows, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Which of these rows this rank stores, and their positions in its part, 0 for the others."""
    own = ops.logical_and(indices >= bank.start, indices < bank.stop)
    return own, ops.where(own, indices - bank.start, 0)
