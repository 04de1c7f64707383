"""Every rank has the whole bank, and computes for its part of the batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.bank_ops import Bank, BankOps
from instdisc_core.communicator import Communicator
from instdisc_core.types import Attention, SearchResult, Tensor

_DIVIDED: ContextVar[bool] = ContextVar("divided", default=False)


class SplitBankOps(BankOps):
    """A BankOps whose bank is whole on every rank; the ranks divide the work of a step.

    Inside ``with bank_ops.divided():`` each rank computes ``scores``, ``combine`` and ``attend``
    for its part of the batch, and the results are gathered. All ranks must then call the same
    methods with the same arguments. Outside, and in all other methods, a rank computes everything
    by itself and waits for nobody.

    Args:
        inner: the BankOps of one device.
        communicator: of the ranks.

    Example:
    ```python
    from instdisc_core.devices import SplitBankOps

    bank_ops = SplitBankOps(get_bank_ops(), Communicator())
    ```
    """

    def __init__(self, inner: BankOps, communicator: Communicator) -> None:
        self.inner, self.communicator = inner, communicator
        self.keras_backend = inner.keras_backend
        self.attend_rows, self.search_rows = inner.attend_rows, inner.search_rows

    @contextmanager
    def divided(self) -> Iterator[None]:
        """See ``BankOps.divided``."""
        token = _DIVIDED.set(True)
        try:
            yield
        finally:
            _DIVIDED.reset(token)

    def rows(self, bank: Bank, indices: Tensor) -> Tensor:
        """See ``BankOps.rows``."""
        return self.inner.rows(bank, indices)

    def scores(self, features: Tensor, bank: Bank, indices: Tensor) -> Tensor:
        """See ``BankOps.scores``."""
        if not self._is_divided(features):
            return self.inner.scores(features, bank, indices)
        part, sizes = self._part(features)
        return self._whole(self.inner.scores(*self._parts(features, bank, indices, part)), sizes)

    def combine(self, weights: Tensor, bank: Bank, indices: Tensor) -> Tensor:
        """See ``BankOps.combine``."""
        if not self._is_divided(weights):
            return self.inner.combine(weights, bank, indices)
        part, sizes = self._part(weights)
        return self._whole(self.inner.combine(*self._parts(weights, bank, indices, part)), sizes)

    def attend(self, features: Tensor, bank: Bank, temperature: float) -> Attention:
        """See ``BankOps.attend``."""
        if not self._is_divided(features):
            return self.inner.attend(features, bank, temperature)
        part, sizes = self._part(features)
        log_z, row = self.inner.attend(features[part], bank, temperature)
        both = self._whole(ops.concatenate([log_z[:, None], row], axis=1), sizes)
        return Attention(both[:, 0], both[:, 1:])

    def update_rows(self, bank: Bank, indices: Tensor, rows: Tensor, moves: Tensor) -> None:
        """See ``BankOps.update_rows``. Every rank writes all of them."""
        self.inner.update_rows(bank, indices, rows, moves)

    def top_k(self, features: Tensor, bank: Bank, k: int) -> SearchResult:
        """See ``BankOps.top_k``."""
        return self.inner.top_k(features, bank, k)

    def top_k_of_first(self, features: Tensor, bank: Bank, k: int, count: Tensor) -> SearchResult:
        """See ``BankOps.top_k_of_first``."""
        return self.inner.top_k_of_first(features, bank, k, count)

    def write(self, variable: keras.Variable, indices: Tensor, values: Tensor) -> None:
        """See ``BankOps.write``."""
        self.inner.write(variable, indices, values)

    def require_writable(self) -> None:
        """See ``BankOps.require_writable``."""
        self.inner.require_writable()

    def dump(self, bank: Bank) -> list[np.ndarray]:
        """See ``BankOps.dump``."""
        return self.inner.dump(bank)

    def load(self, bank: Bank, arrays: Sequence[np.ndarray]) -> None:
        """See ``BankOps.load``."""
        self.inner.load(bank, arrays)

    def _is_divided(self, batch: Tensor) -> bool:
        """Whether the ranks divide this batch: not if some of them would have no image."""
        return _DIVIDED.get() and not (batch.shape[0] or self.communicator.size) < (
            self.communicator.size
        )

    def _part(self, batch: Tensor) -> tuple[slice, list[Any]]:
        """This rank's part of the batch, and the sizes of all parts."""
        images, rank, ranks = ops.shape(batch)[0], self.communicator.rank, self.communicator.size
        starts = [images * r // ranks for r in range(ranks + 1)]
        sizes = [stop - start for start, stop in pairwise(starts)]
        return slice(images * rank // ranks, images * (rank + 1) // ranks), sizes

    def _parts(self, batch: Tensor, bank: Bank, indices: Tensor, part: slice) -> tuple[Any, ...]:
        return batch[part], bank, indices if len(indices.shape) == 1 else indices[part]

    def _whole(self, part: Tensor, sizes: list[Any]) -> Tensor:
        return self.communicator.all_gather(part, sizes)
