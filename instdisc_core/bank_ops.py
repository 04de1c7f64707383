"""The contract between the method and a framework: five primitives over the memory bank."""

import math

import keras
from einops import einsum, rearrange
from keras import ops

from instdisc_core.quantized_rows import QuantizedRows

# Elements of a gather that may be held at once. It bounds memory and changes no result.
GATHER_ELEMENTS = 2**22


class BankOps:
    """Five primitives over a memory bank, written in Keras operations.

    These bodies run on every Keras backend and define what each primitive means. A backend
    subclasses this and overrides what its framework does faster; it changes no result. None of
    the five is differentiated through. In all of them

    - ``features`` is a float32 tensor ``(batch, embedding_dim)``,
    - ``bank`` is a ``keras.Variable`` or tensor ``(num_instances, embedding_dim)`` of any float
      dtype, or ``QuantizedRows``; scores and sums are float32 whatever the bank is stored in,
    - ``indices`` hold integers in ``[0, num_instances)``; the caller has checked them.

    Attributes:
        keras_backend: the Keras backend that this class needs, or None where any will do.
        attend_rows, search_rows: how many rows of the bank a pass of ``attend`` and of ``top_k``
            holds at a time. They change speed and memory, never a result.

    Example:
    ```python
    bank = keras.ops.normalize(keras.random.normal((100, 8)))
    log_z, expected_row = BankOps().attend(bank[:2], bank, temperature=0.1)
    ```
    """

    keras_backend: str | None = None
    attend_rows = 1024
    search_rows = 8192

    def require_writable(self) -> None:
        """Raise a RuntimeError if a variable that is assigned to now would not keep its value.

        It is no primitive: a framework whose compiled steps are pure functions overrides it.
        """

    def scores(self, features, bank, indices):
        """Inner products ``v_j . f_i`` with chosen rows of the bank.

        Args:
            indices: ``(batch, K)``, each image's own rows, or ``(K,)``, shared by all.

        Returns:
            Float32 tensor ``(batch, K)``.
        """
        if len(indices.shape) == 1:
            rows = gather_rows(bank, indices)
            return einsum(features, rows, "image feature, row feature -> image row")
        if _fits(indices, bank):
            rows = gather_rows(bank, indices)
            return einsum(features, rows, "image feature, image row feature -> image row")
        return ops.map(
            lambda one: ops.matmul(gather_rows(bank, one[1]), one[0]), (features, indices)
        )

    def combine(self, weights, bank, indices):
        """Weighted sums of chosen rows, ``sum_k weights_ik v_{j_ik}``.

        Args:
            weights: float32 tensor ``(batch, K)``.
            indices: ``(batch, K)``, or ``(K,)`` shared by all images.

        Returns:
            Float32 tensor ``(batch, embedding_dim)``.
        """
        if len(indices.shape) == 1:
            rows = gather_rows(bank, indices)
            return einsum(weights, rows, "image row, row feature -> image feature")
        if _fits(indices, bank):
            rows = gather_rows(bank, indices)
            return einsum(weights, rows, "image row, image row feature -> image feature")
        return ops.map(
            lambda one: ops.matmul(one[0], gather_rows(bank, one[1])), (weights, indices)
        )

    def attend(self, features, bank, temperature):
        """The softmax over the whole bank, as attention: its normalizer and its mean row.

        With ``s_ij = v_j . f_i / temperature`` and ``p_i = softmax(s_i)``.

        Returns:
            ``log_z`` ``(batch,)``, ``log sum_j exp s_ij``, and ``expected_row``
            ``(batch, embedding_dim)``, ``sum_j p_ij v_j``; both float32.
        """

        def step(state, rows, _, repeated):
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
        maximum, total, weighted = _stream(bank, self.attend_rows, step, start)
        return maximum + ops.log(total), weighted / total[:, None]

    def update_rows(self, bank, indices, rows):
        """Write ``rows`` ``(K, width)`` to ``bank[indices]``.

        ``bank`` is one ``keras.Variable`` of any dtype; of ``QuantizedRows`` each part is written
        by itself. An index that appears twice comes with the same row both times.
        """
        rows = ops.cast(rows, bank.dtype)
        bank.assign(ops.scatter_update(bank, rearrange(indices, "row -> row 1"), rows))

    def top_k(self, features, bank, k):
        """The ``k`` rows with the largest inner product, best first.

        Returns:
            Scores ``(batch, k)``, float32, and indices ``(batch, k)``, int32.
        """

        def step(state, rows, positions, repeated):
            best, where = state
            s = einsum(features, rows, "image feature, row feature -> image row")
            s = ops.where(repeated, -math.inf, s)
            positions = ops.broadcast_to(positions, ops.shape(s))
            best, chosen = ops.top_k(ops.concatenate([best, s], axis=1), k)
            where = ops.concatenate([where, positions], axis=1)
            return best, ops.take_along_axis(where, ops.cast(chosen, "int32"), axis=1)

        zeros = ops.zeros((ops.shape(features)[0], k))
        return _stream(bank, self.search_rows, step, (zeros - math.inf, ops.cast(zeros, "int32")))


def gather_rows(bank, indices):
    """``bank[indices]`` in float32, read from the variable itself.

    TensorFlow copies a variable whole to convert it to a tensor, once it has been scattered into.
    """
    if isinstance(bank, QuantizedRows):
        return gather_rows(bank.values, indices) * gather_rows(bank.scale, indices)
    table = bank.value if isinstance(bank, keras.Variable) else bank
    return ops.cast(ops.take(table, indices, axis=0), "float32")


def _fits(indices, bank):
    """Whether gathering ``bank[indices]`` whole stays small; unknown batch sizes do not."""
    known = all(size is not None for size in indices.shape)
    return known and math.prod(indices.shape) * bank.shape[1] <= GATHER_ELEMENTS


def _stream(bank, size, step, state):
    """Fold ``step(state, rows, positions, repeated)`` over the bank, ``size`` rows at a time.

    The last block starts early and overlaps its predecessor, so that all are of one size;
    ``repeated`` marks the rows that were seen before.
    """
    num_instances = bank.shape[0]
    size = min(size, num_instances)
    offsets = ops.arange(size, dtype="int32")

    def body(block, state):
        first = ops.cast(block * size, "int32")
        positions = ops.minimum(first, num_instances - size) + offsets
        return step(state, gather_rows(bank, positions), positions, positions < first)

    return ops.fori_loop(0, math.ceil(num_instances / size), body, state)
