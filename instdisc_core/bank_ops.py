"""The contract between the method and a framework: six primitives over the rows of a bank."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import keras
import numpy as np
from einops import einsum, rearrange
from keras import ops

from instdisc_core.host_calls import HostCalls
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.sharded_rows import parts
from instdisc_core.two_stage_search import chunk_rows, top_k
from instdisc_core.types import Attention, SearchResult, Tensor

Bank: TypeAlias = Tensor | QuantizedRows

# Elements of a gather that may be held at once. It bounds memory and changes no result.
GATHER_ELEMENTS = 2**22
# Maxima of chunks of rows that a search holds at once, also without changing a result: 128 MiB.
MAXIMA = 2**25


class BankOps(HostCalls):
    """Six primitives over the rows of a bank, written in Keras operations.

    These bodies run on every Keras backend and define what each primitive means. A backend
    subclasses this and overrides what its framework does faster; it changes no result. Nothing
    else reads or writes rows. None of the six is differentiated through. In all of them

    - ``features`` is a float32 tensor ``(batch, embedding_dim)``,
    - ``bank`` is a ``keras.Variable`` or tensor ``(num_rows, embedding_dim)`` of any float dtype,
      or ``QuantizedRows``; rows, scores and sums are float32 whatever the bank is stored in,
    - ``indices`` hold integers in ``[0, num_rows)``; the caller has checked them.

    Attributes:
        keras_backend: the Keras backend that this class needs, or None where any will do.
        attend_rows, search_rows: how many rows of the bank a pass of ``attend`` and of ``top_k``
            holds at a time. They change speed and memory, never a result.

    Example:
    ```python
    rows = keras.ops.normalize(keras.random.normal((100, 8)))
    log_z, expected_row = BankOps().attend(rows[:2], rows, temperature=0.1)
    ```
    """

    keras_backend: str | None = None
    attend_rows = 1024
    search_rows = 4096

    def rows(self, bank: Bank, indices: Tensor) -> Tensor:
        """Chosen rows, ``v_j``.

        Args:
            indices: of any shape.

        Returns:
            Float32 tensor of that shape with one more axis, ``embedding_dim``.
        """
        if isinstance(bank, QuantizedRows):
            return self.rows(bank.values, indices) * self.rows(bank.scale, indices)
        return ops.cast(ops.take(_table(bank), indices, axis=0), "float32")

    def scores(self, features: Tensor, bank: Bank, indices: Tensor) -> Tensor:
        """Inner products ``v_j . f_i`` with chosen rows of the bank.

        Args:
            indices: ``(batch, K)``, each image's own rows, or ``(K,)``, shared by all.

        Returns:
            Float32 tensor ``(batch, K)``.
        """
        if len(indices.shape) == 1:
            rows = self.rows(bank, indices)
            return einsum(features, rows, "image feature, row feature -> image row")
        if _fits(indices, bank):
            rows = self.rows(bank, indices)
            return einsum(features, rows, "image feature, image row feature -> image row")
        return ops.map(lambda one: ops.matmul(self.rows(bank, one[1]), one[0]), (features, indices))

    def combine(self, weights: Tensor, bank: Bank, indices: Tensor) -> Tensor:
        """Weighted sums of chosen rows, ``sum_k weights_ik v_{j_ik}``.

        Args:
            weights: float32 tensor ``(batch, K)``.
            indices: ``(batch, K)``, or ``(K,)`` shared by all images.

        Returns:
            Float32 tensor ``(batch, embedding_dim)``.
        """
        if len(indices.shape) == 1:
            rows = self.rows(bank, indices)
            return einsum(weights, rows, "image row, row feature -> image feature")
        if _fits(indices, bank):
            rows = self.rows(bank, indices)
            return einsum(weights, rows, "image row, image row feature -> image feature")
        return ops.map(lambda one: ops.matmul(one[0], self.rows(bank, one[1])), (weights, indices))

    def attend(self, features: Tensor, bank: Bank, temperature: float) -> Attention:
        """The softmax over the whole bank, as attention: its normalizer and its mean row.

        With ``s_ij = v_j . f_i / temperature`` and ``p_i = softmax(s_i)``.

        Returns:
            An Attention: ``log_z``, ``log sum_j exp s_ij``, and ``expected_row``,
            ``sum_j p_ij v_j``.
        """

        def step(state: Any, rows: Tensor, _: Tensor, repeated: Tensor) -> Any:
            maximum, total, weighted = state
            s = einsum(features, rows, "image feature, row feature -> image row") / temperature
            s = ops.where(repeated, -math.inf, s)
            new_maximum = ops.maximum(maximum, ops.max(s, axis=1))
            shrink = ops.exp(maximum - new_maximum)
            p = ops.exp(s - new_maximum[:, None])
            total = total * shrink + ops.sum(p, axis=1)
            weighted = weighted * shrink[:, None] + ops.matmul(p, rows)
            return new_maximum, total, weighted

        zero = ops.zeros_like(features[:, 0])
        start = (zero - math.inf, zero, ops.zeros_like(features))
        maximum, total, weighted = self._stream(bank, self.attend_rows, step, start)
        return Attention(maximum + ops.log(total), weighted / total[:, None])

    def update_rows(self, bank: Bank, indices: Tensor, rows: Tensor, moves: Tensor) -> None:
        """Write ``rows`` to ``bank[indices]`` where ``moves``; every other row keeps its bits.

        Args:
            indices: ``(K,)``. An index that appears twice comes with the same row, and the same
                element of ``moves``, both times.
            rows: float32 tensor ``(K, embedding_dim)``.
            moves: boolean tensor ``(K,)``.
        """
        stored = QuantizedRows.of(rows) if isinstance(bank, QuantizedRows) else (rows,)
        for variable, new in zip(parts(bank), stored, strict=True):
            old = ops.take(_table(variable), indices, axis=0)
            new = ops.where(moves[:, None], ops.cast(new, variable.dtype), old)
            self.write(variable, indices, new)

    def top_k(self, features: Tensor, bank: Bank, k: int) -> SearchResult:
        """The ``k`` rows with the largest inner product, best first.

        Returns:
            A SearchResult.
        """
        batch, num_rows = features.shape[0], bank.shape[0]
        if batch == 0:  # Keras takes no maximum of nothing
            return SearchResult(ops.zeros((0, k)), ops.zeros((0, k), "int32"))
        size = max(64, MAXIMA // (num_rows // chunk_rows(num_rows, k)))
        if batch is None or batch <= size:
            return self._nearest(features, bank, k)
        some = [self._nearest(features[i : i + size], bank, k) for i in range(0, batch, size)]
        scores, indices = zip(*some, strict=True)
        return SearchResult(ops.concatenate(scores), ops.concatenate(indices))

    def top_k_of_first(self, features: Tensor, bank: Bank, k: int, count: Tensor) -> SearchResult:
        """``top_k`` among the first ``count`` rows.

        Not a primitive: it streams ``rows``.

        Args:
            count: integer tensor ``()``.

        Returns:
            As ``top_k``. Where ``count`` is less than ``k``, the last scores are ``-inf``, and
            their indices mean nothing.
        """

        def step(state: Any, rows: Tensor, positions: Tensor, repeated: Tensor) -> Any:
            best, where = state
            s = einsum(features, rows, "image feature, row feature -> image row")
            s = ops.where(ops.logical_or(repeated, positions >= count), -math.inf, s)
            positions = ops.broadcast_to(positions, ops.shape(s))
            best, chosen = ops.top_k(ops.concatenate([best, s], axis=1), k)
            where = ops.concatenate([where, positions], axis=1)
            return best, ops.take_along_axis(where, ops.cast(chosen, "int32"), axis=1)

        zeros = ops.zeros((ops.shape(features)[0], k))
        start = (zeros - math.inf, ops.cast(zeros, "int32"))
        return SearchResult(*self._stream(bank, self.search_rows, step, start))

    def _nearest(self, features: Tensor, bank: Bank, k: int) -> SearchResult:
        """``top_k`` for as many images as memory allows."""
        return top_k(self.rows, self.scores, features, bank, k, self.search_rows)

    def write(self, variable: keras.Variable, indices: Tensor, values: Tensor) -> None:
        """Write ``values`` ``(K, width)`` to ``variable[indices]``: how ``update_rows`` writes.

        Not a primitive: a framework that writes in place overrides this alone.
        """
        where = rearrange(indices, "row -> row 1")
        variable.assign(ops.scatter_update(variable, where, values))

    def divided(self) -> AbstractContextManager[None]:
        """Inside, ranks may share the work of a step; see ``SplitBankOps``. Not a primitive."""
        return nullcontext()

    def require_writable(self) -> None:
        """Raise a RuntimeError if what is assigned to a variable would be lost. Not a primitive."""
        return None  # AutoGraph takes no function without a statement

    def divided_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The shape to store a table in that the framework divides among devices; else None."""
        return None

    def dump(self, bank: Bank) -> list[np.ndarray]:
        """All of the bank as it is stored, for a file; ``load`` restores it bit for bit."""
        return [ops.convert_to_numpy(variable) for variable in parts(bank)]

    def load(self, bank: Bank, arrays: Sequence[np.ndarray]) -> None:
        """Restore what ``dump`` returned."""
        for variable, array in zip(parts(bank), arrays, strict=True):
            variable.assign(array)

    def _stream(self, bank: Bank, size: int, step: Callable, state: Any) -> Any:
        """Fold ``step(state, rows, positions, repeated)`` over the bank, ``size`` rows at a time.

        The last block starts early and overlaps the one before it, so that all blocks have one
        size; ``repeated`` marks the rows that were seen before.
        """
        num_rows = bank.shape[0]
        size = min(size, num_rows)
        offsets = ops.arange(size, dtype="int32")

        def body(block: Tensor, state: Any) -> Any:
            first = ops.cast(block * size, "int32")
            positions = ops.minimum(first, num_rows - size) + offsets
            return step(state, self.rows(bank, positions), positions, positions < first)

        return ops.fori_loop(0, math.ceil(num_rows / size), body, state)


def _table(bank: Tensor) -> Tensor:
    """The bank's value, read from the variable itself.

    TensorFlow copies a variable whole to convert it to a tensor, once it has been scattered into.
    """
    return bank.value if isinstance(bank, keras.Variable) else bank


def _fits(indices: Tensor, bank: Bank) -> bool:
    """Whether gathering ``bank[indices]`` whole stays small; unknown batch sizes do not."""
    known = all(size is not None for size in indices.shape)
    return known and math.prod(indices.shape) * bank.shape[1] <= GATHER_ELEMENTS
