"""TensorflowBankOps: passes over the bank that XLA compiles, updates in place."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from instdisc_core import BankOps, QuantizedRows
from instdisc_core.types import Attention, SearchResult

Bank: TypeAlias = keras.Variable | tf.Tensor | QuantizedRows
PROGRAMS = 32  # compiled searches that are kept for a bank


class TensorflowBankOps(BankOps):
    """The six primitives on TensorFlow; see ``instdisc_core.BankOps`` for what each means.

    The bodies are the reference's. In a graph, XLA compiles those that loop, even if the step
    around them is not compiled. This needs a build of TensorFlow with XLA.

    Example: ``bank = MemoryBank(50_000, 128, backend="tensorflow")``
    """

    keras_backend = "tensorflow"
    calls_host_from_xla = False

    def scores(self, features: tf.Tensor, bank: Bank, indices: tf.Tensor) -> tf.Tensor:
        """See ``BankOps.scores``."""
        if indices.shape.rank == 1:
            return super().scores(features, bank, indices)
        body = super().scores
        width = indices.shape[1]
        return _unless_empty(width, lambda f, i: body(f, bank, i), features, indices)

    def combine(self, weights: tf.Tensor, bank: Bank, indices: tf.Tensor) -> tf.Tensor:
        """See ``BankOps.combine``."""
        if indices.shape.rank == 1:
            return super().combine(weights, bank, indices)
        body = super().combine
        width = bank.shape[1]
        return _unless_empty(width, lambda w, i: body(w, bank, i), weights, indices)

    def attend(self, features: tf.Tensor, bank: Bank, temperature: float) -> Attention:
        """See ``BankOps.attend``."""
        body = super().attend
        return _in_one(lambda f: body(f, bank, temperature), features)

    def is_compiling(self) -> bool:
        """See ``HostCalls.is_compiling``."""
        return not tf.executing_eagerly()

    def on_host(
        self, function: Callable, results: Sequence[tuple[tuple, str]], *tensors: tf.Tensor
    ) -> list[tf.Tensor]:
        """See ``HostCalls.on_host``. In a graph an operation with state, which keeps its order."""
        if not self.is_compiling():
            return super().on_host(function, results, *tensors)

        def call(*arrays: Any) -> Sequence[Any]:
            found = function(*arrays)
            return found if results else []

        dtypes = [tf.as_dtype(dtype) for _, dtype in results]
        found = tf.numpy_function(call, tensors, dtypes, stateful=True)
        if not results:
            return []
        for tensor, (shape, _) in zip(found, results, strict=True):
            tensor.set_shape(shape)
        return found

    def write(self, variable: keras.Variable, indices: tf.Tensor, values: tf.Tensor) -> None:
        """See ``BankOps.write``. Scatters into the variable, in eager mode, graph and XLA."""
        table = variable.value
        if not hasattr(table, "scatter_update"):  # a stateless scope: the tensor is the caller's
            return super().write(variable, indices, values)
        table.scatter_update(tf.IndexedSlices(values, indices))
        return None

    def _nearest(self, features: tf.Tensor, bank: Bank, k: int) -> SearchResult:
        """See ``BankOps._nearest``. Compiled by XLA, once for each shape, outside a graph too."""
        bank = keras.tree.map_structure(_value, bank)
        if not _has_xla():
            return super()._nearest(features, bank, k)
        programs = _programs_for(keras.tree.flatten(bank)[0])
        return programs(self, features.shape, bank.shape, bank.dtype, k)(features, bank)


def _programs() -> Callable[..., Any]:
    """Compiled searches by their shapes; those that were used last are kept."""

    @lru_cache(maxsize=PROGRAMS)
    def program(
        operations: BankOps, queries: tf.TensorShape, rows: Any, dtype: Any, k: int
    ) -> Callable[..., Any]:
        return tf.function(
            lambda f, bank: BankOps._nearest(operations, f, bank, k), jit_compile=True
        )

    return program


_OF_TENSORS = _programs()


def _programs_for(table: tf.Variable | tf.Tensor) -> Callable[..., Any]:
    """The compiled searches of a bank, kept with the variable that they read.

    TensorFlow calls no function whose variable is deleted, also for another variable.
    """
    if not isinstance(table, tf.Variable):
        return _OF_TENSORS
    return table.__dict__.setdefault("searches", _programs())


def _unless_empty(width: int | None, body: Callable[..., Any], *tensors: tf.Tensor) -> Any:
    """``_in_one``; nothing where a replica has no part of a batch, over which XLA cannot loop."""
    context = tf.distribute.get_replica_context()
    alone = context is None or context.num_replicas_in_sync == 1
    if alone or width is None or tensors[0].shape[0] is not None:
        return _in_one(body, *tensors)
    return tf.cond(
        tf.shape(tensors[0])[0] > 0,
        lambda: _in_one(body, *tensors),
        lambda: tf.zeros((0, width)),
    )


def _in_one(body: Callable[..., Any], *tensors: tf.Tensor) -> Any:
    """``body(*tensors)``, compiled by XLA as one program if in a graph."""
    if tf.executing_eagerly() or not _has_xla():
        return body(*tensors)
    return tf.function(body, jit_compile=True)(*tensors)


@cache
def _has_xla() -> bool:
    """Whether this build of TensorFlow has XLA."""
    try:
        with tf.init_scope():
            tf.function(lambda x: x + 1, jit_compile=True)(tf.zeros(()))
    except (tf.errors.OpError, ValueError):
        return False
    return True


def _value(table: keras.Variable | tf.Tensor) -> tf.Variable | tf.Tensor:
    """The variable, or that of the first replica."""
    value = table.value if isinstance(table, keras.Variable) else table
    if isinstance(value, tf.distribute.DistributedValues):
        return tf.distribute.get_strategy().experimental_local_results(value)[0]
    return value
