"""The replicas of ``tf.distribute``."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from instdisc_core import Communicator

STRATEGIES = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy


class TensorflowCommunicator(Communicator):
    """The replicas of a strategy, of which one process has one or more.

    It communicates in the step that ``strategy.run`` runs, as Keras's ``fit`` does; outside of it,
    workers can ``exchange`` messages, and all else is that of one device.

    Args:
        strategy: a MirroredStrategy or MultiWorkerMirroredStrategy.

    Example:
    ```python
    import tensorflow as tf

    with tf.distribute.MirroredStrategy().scope():
        bank = MemoryBank(50_000, 128)  # it finds the replicas by itself
    ```
    """

    sums_gradients = True
    stores_parts = False

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy, self.size = strategy, strategy.num_replicas_in_sync
        cluster = strategy.cluster_resolver
        if cluster is not None and cluster.cluster_spec().num_tasks("worker") > 1:
            self.process = cluster.task_id
            self.processes = cluster.cluster_spec().num_tasks("worker")

    @property
    def rank(self) -> Any:
        """The number of the replica; 0 outside of a step."""
        replica = _replica()
        return 0 if replica is None else replica.replica_id_in_sync_group

    def all_gather(self, x: tf.Tensor, sizes: Sequence[Any] | None = None) -> tf.Tensor:
        """See ``Communicator.all_gather``."""
        replica = _replica()
        if replica is None:
            return x
        x = tf.convert_to_tensor(x)
        sent = tf.cast(x, "int32") if x.dtype == tf.bool else tf.identity(x)
        return tf.cast(replica.all_gather(sent, axis=0), x.dtype)

    def all_reduce(self, x: tf.Tensor, op: Literal["sum", "max"] = "sum") -> tf.Tensor:
        """See ``Communicator.all_reduce``."""
        replica = _replica()
        if replica is None:
            return x
        if op == "max":
            return tf.reduce_max(self.all_gather(x[None]), axis=0)
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, x)

    def exchange(self, message: bytes) -> list[bytes]:
        """See ``Communicator.exchange``. The first replica of each process sends its message."""
        if self.processes == 1:
            return [message]
        own = np.frombuffer(message, "uint8").astype("int32")
        sizes = self._gathered(np.array([len(own)], "int32"))
        ends = np.cumsum(sizes)
        parts = np.split(self._gathered(own).astype("uint8"), ends[:-1])
        return [part.tobytes() for part in parts]

    def whole_batch(self, features: tf.Tensor, *others: tf.Tensor | None) -> tuple[Any, ...]:
        """See ``Communicator.whole_batch``. A graph does not know how many images a replica has."""
        if _replica() is None:
            return features, *others
        counts = self.all_gather(tf.shape(features)[:1])
        start = tf.reduce_sum(counts[: self.rank])
        gathered = self.all_gather(tf.stop_gradient(features))
        after = gathered[start + tf.shape(features)[0] :]
        whole = tf.concat([gathered[:start], features, after], axis=0)
        return whole, *(None if x is None else self.all_gather(x) for x in others)

    def whole_loss(self, loss: tf.Tensor, regularizers: Sequence[tf.Tensor] = ()) -> tf.Tensor:
        """See ``Communicator.whole_loss``."""
        if _replica() is None:
            return Communicator().whole_loss(loss, regularizers)
        return super().whole_loss(loss, regularizers)

    def scope(self) -> AbstractContextManager[Any]:
        """See ``Communicator.scope``."""
        return self.strategy.scope()

    def prepare(self, model: keras.Model) -> None:
        """Let augmentation and dropout draw other numbers on each replica.

        Every replica has a copy of a random state. The first one's is that of one device, and is
        what a file holds.

        Raises:
            ValueError: Keras's ``fit`` with several workers.
        """
        if self.processes > 1:
            raise ValueError(
                f"Received: fit with {self.processes} workers of MultiWorkerMirroredStrategy. "
                "Expected one: Keras's fit fails with more, for any model (keras#20585). Train "
                "them in a loop with strategy.run, see examples/train_tensorflow.py."
            )
        for state in model.states_drawn_apart():
            first, *others = self.strategy.experimental_local_results(state.value)
            seed, drawn = first.numpy().tolist()
            for replica, copy in enumerate(others, start=1):
                copy.assign([self.own_seed(seed, replica), drawn])

    def _gathered(self, own: np.ndarray) -> np.ndarray:
        """The arrays of all processes, one after the other, outside of a step."""
        replicas = self.size // self.processes

        def sent(replica: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            is_first = replica.replica_id_in_sync_group % replicas == 0
            return tf.constant(own if is_first else own[:0])

        values = self.strategy.experimental_distribute_values_from_function(sent)
        return np.asarray(self.strategy.gather(values, axis=0))


def _replica() -> Any:
    """The context of a replica in a step of several; None outside."""
    context = tf.distribute.get_replica_context()
    alone = context is None or context.num_replicas_in_sync == 1
    return None if alone else context


def communicator() -> Communicator:
    """The replicas of the strategy in whose scope this is called; else one device."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return Communicator()
    if not isinstance(strategy, STRATEGIES):
        raise ValueError(
            f"Received: {type(strategy).__name__} with {strategy.num_replicas_in_sync} replicas. "
            "Expected MirroredStrategy or MultiWorkerMirroredStrategy, which keep a copy of the "
            "memory bank on each replica. Use one of them."
        )
    return TensorflowCommunicator(strategy)
