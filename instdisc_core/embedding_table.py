"""What every owner of rows shares: storage, reads, search, configuration and saving."""

import math
from collections.abc import MutableMapping
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.communicator import Communicator, get_communicator
from instdisc_core.gradients import stopped
from instdisc_core.host_rows import HostRows, load_pieces
from instdisc_core.host_storage import require_sound, save_rows
from instdisc_core.registry import get_bank_ops
from instdisc_core.row_storage import create_rows, for_ranks
from instdisc_core.sharded_rows import parts, whole_shape
from instdisc_core.streamed_bank_ops import bank_ops_for
from instdisc_core.types import Attention, RowStorage, SearchResult, StorageDtype, Tensor
from instdisc_core.validation import (
    check_features,
    check_indices,
    host_values,
    require,
    require_choice,
    require_count,
    widened,
)


class EmbeddingTable(keras.layers.Layer):
    """Rows of one width that are read and searched through a ``BankOps``.

    A subclass adds how its rows move: it computes the new rows, and ``update_rows`` of its
    ``BankOps`` writes them. See ``MemoryBank``, ``SupportSet`` and ``ClassWeights``.

    Args:
        num_rows, embedding_dim: the number of rows and their width ``d``, each at least 1.
        dtype: storage of the rows: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"int8"``
            with a float32 scale for each row. What is computed from the rows is always float32.
        seed: of the starting rows, the same on every framework. None draws fresh ones.
        backend: which primitives to use, see ``registry.get_bank_ops``; not saved with the rows.
        storage: where the rows are: None for the device, ``"host"`` for the host's memory, or the
            path of a file, which is created if it is not there; see ``HostRows``. Not saved either.
        communicator: of the ranks that train together, see ``get_communicator``; not saved either.
        sharded: store on each rank a part of the rows, else all of them; not saved either. One
            device has all rows in any case.

    Attributes:
        rows: the variable ``(num_rows, embedding_dim)``, ``QuantizedRows`` of two, ``ShardedRows``
            or HostRows. ``rows.assign(array)`` restores all of it; ``lookup`` reads some.
        bank_ops: the BankOps through which they are read and written.
        communicator: the Communicator.

    Raises:
        ValueError: an argument is out of its range.
    """

    unit_rows = True
    """Whether every row has length 1: checked when rows are loaded."""

    def __init__(
        self,
        num_rows: int,
        embedding_dim: int,
        dtype: StorageDtype = "float32",
        seed: int | None = None,
        backend: str | BankOps | None = None,
        storage: RowStorage = None,
        communicator: Communicator | None = None,
        sharded: bool = False,
        **kwargs: Any,
    ):
        require_count("num_rows", num_rows)
        require_count("embedding_dim", embedding_dim)
        require_choice("dtype", dtype, get_args(StorageDtype))
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.num_rows = int(num_rows)
        self.embedding_dim = int(embedding_dim)
        self.seed = seed
        self.given_communicator = communicator
        self.communicator = get_communicator(communicator)
        self.bank_ops = for_ranks(get_bank_ops(backend), self.communicator, sharded, storage)
        self.supports_jit = storage is None or self.bank_ops.calls_host_from_xla
        self.rows = create_rows(self._storage, self.shape, dtype, seed, self.bank_ops, storage)
        self.bank_ops = bank_ops_for(self.rows, self.bank_ops)
        self._load_error: ValueError | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(num_rows, embedding_dim)``."""
        return (self.num_rows, self.embedding_dim)

    def lookup(self, indices: Tensor) -> Tensor:
        """Chosen rows.

        Args:
            indices: integers ``(batch,)`` in ``[0, num_rows)``.

        Returns:
            Float32 tensor ``(batch, embedding_dim)``.

        Raises:
            ValueError: indices that are not integers, not one-dimensional, or out of range.

        Example: ``bank.lookup([0, 7]).shape  # (2, 128)``
        """
        indices = ops.cast(check_indices(indices, self.num_rows), "int32")
        return self.bank_ops.rows(self.rows, indices)

    def search(self, features: Tensor, k: int) -> SearchResult:
        """The rows that are most similar to these embeddings.

        Args:
            features: ``(queries, embedding_dim)``; unit embeddings make the scores cosines.
            k: how many, in ``[1, num_rows]``.

        Returns:
            A SearchResult, each part ``(queries, k)``, best first. A query that is not finite,
            where its values could not be checked, has the scores NaN and the indices -1.

        Raises:
            ValueError: k or the shape is wrong; or, in the host's memory, a value is not finite.

        Example: ``bank.search(features, k=3).indices[0]  # of the first query``
        """
        features = stopped(check_features(features, self.embedding_dim, finite=True))
        require_count("k", k)
        require(k <= self.num_rows, f"k={k}", f"at most the {self.num_rows} rows")
        if host_values(features) is not None:  # they were checked
            return self.top_k(features, k)
        return self.found(features, k)

    def found(self, features: Tensor, k: int) -> SearchResult:
        """``search`` without its checks, for a step of training; ``features`` are constants."""
        finite = ops.all(ops.isfinite(features), axis=1, keepdims=True)
        scores, indices = self.top_k(ops.where(finite, features, 0.0), k)
        return SearchResult(ops.where(finite, scores, math.nan), ops.where(finite, indices, -1))

    def top_k(self, features: Tensor, k: int) -> SearchResult:
        """See ``BankOps.top_k``."""
        return SearchResult(*self.bank_ops.top_k(features, self.rows, k))

    def scores(self, features: Tensor, indices: Tensor) -> Tensor:
        """Inner products ``v_j . f_i`` with chosen rows; see ``BankOps.scores``."""
        return self.bank_ops.scores(stopped(features), self.rows, ops.convert_to_tensor(indices))

    def combine(self, weights: Tensor, indices: Tensor) -> Tensor:
        """Weighted sums of chosen rows; see ``BankOps.combine``."""
        return self.bank_ops.combine(stopped(weights), self.rows, ops.convert_to_tensor(indices))

    def attend(self, features: Tensor, temperature: float) -> Attention:
        """``log Z_i`` and the expected row under the softmax; see ``BankOps.attend``."""
        return Attention(*self.bank_ops.attend(stopped(features), self.rows, temperature))

    def contains(self, indices: Tensor) -> Tensor:
        """Which of these integers name a row: booleans of their shape."""
        integers = indices if hasattr(indices, "dtype") else np.asarray(indices)
        indices = ops.convert_to_tensor(widened(integers))
        return ops.logical_and(indices >= 0, indices < self.num_rows)

    def require_writable(self) -> None:
        """Raise a RuntimeError where an update would be lost; see ``BankOps.require_writable``."""
        self.bank_ops.require_writable()

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Save the rows and what else the owner has."""
        count = save_rows(store, self.bank_ops, self.rows)
        for i, variable in enumerate(self._other_variables(), start=count):
            store[str(i)] = self.bank_ops.dump(variable)[0]

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Restore what ``save_own_variables`` saved, all of it or nothing.

        Raises:
            ValueError: the file's rows have another shape, are not finite, or are not of length 1
                where they must be. The rows are then unchanged.
        """
        arrays = load_pieces(store, whole=not isinstance(self.rows, HostRows))
        error, self._load_error = self._load_error, None
        if not arrays and error:  # Keras tries once more, where nothing is saved
            raise error
        try:
            self.restore(arrays)
        except ValueError as error:
            self._load_error = error
            raise

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what a file holds, once checked; see ``load_own_variables``."""
        self._take(self._checked(arrays))

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {
            "name": self.name,
            "num_rows": self.num_rows,
            "embedding_dim": self.embedding_dim,
            "dtype": keras.backend.standardize_dtype(self.rows.dtype),
            "seed": self.seed,
        }

    def _other_variables(self) -> list[keras.Variable]:
        """The variables that are not rows, in the order in which they were added."""
        rows = {id(variable) for variable in self._stored()}
        return [variable for variable in self.weights if id(variable) not in rows]

    def _checked(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays of a file in their order; raise unless they fit and the rows are sound."""
        stored = self._stored()
        variables = [*stored, *self._other_variables()]
        shapes = {str(i): whole_shape(variable) for i, variable in enumerate(variables)}
        found = {name: array.shape for name, array in arrays.items() if name in shapes}
        require(
            found == shapes,
            f"a file whose {self.name} has the shapes {found}",
            f"{shapes}",
            "Build it with the number of rows, width and storage that it was saved with.",
        )
        values = [arrays[name] for name in shapes]
        require_sound(self.name, values[: len(stored)], self.unit_rows)
        return values

    def _take(self, values: list[np.ndarray]) -> None:
        """Write what ``_checked`` returned to the variables."""
        stored = len(self._stored())
        self.bank_ops.load(self.rows, values[:stored])
        for variable, value in zip(self._other_variables(), values[stored:], strict=True):
            self.bank_ops.load(variable, [value])

    def _stored(self) -> tuple[Any, ...]:
        """The variables or arrays that the rows are stored in."""
        return tuple(self.rows.arrays) if isinstance(self.rows, HostRows) else parts(self.rows)

    def _storage(self, name: str, start: Tensor, dtype: str) -> keras.Variable:
        shape = self.bank_ops.divided_shape(f"{self.name}/{name}", start.shape)
        if shape is not None:  # no device must hold all of it
            variable = self._variable(name, shape, dtype, "zeros")
            variable.whole_shape = tuple(start.shape)
            self.bank_ops.load(variable, [ops.convert_to_numpy(start)])
            return variable
        return self._variable(
            name, start.shape, dtype, lambda shape, dtype: ops.convert_to_tensor(start, dtype=dtype)
        )

    def _variable(self, name: str, shape: Any, dtype: str, start: Any) -> keras.Variable:
        given = {"name": name, "shape": shape, "dtype": dtype, "initializer": start}
        return self.add_weight(**given, trainable=False, autocast=False)
