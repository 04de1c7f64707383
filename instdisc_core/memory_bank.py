"""The memory bank: one unit row for each image."""

import math
from collections.abc import MutableMapping
from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.communicator import Communicator
from instdisc_core.data.manifest import Manifest
from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.gradients import false_after, stopped
from instdisc_core.normalization import has_direction
from instdisc_core.sums import count
from instdisc_core.types import RowStorage, StorageDtype, Tensor
from instdisc_core.validation import (
    check_features,
    check_indices,
    check_paired,
    require,
    require_count,
    require_number,
)


@keras.saving.register_keras_serializable(package="instdisc_core")
class MemoryBank(EmbeddingTable):
    """The embeddings of all images, as they were last seen: classifier, search index, checkpoint.

    Row ``v_i`` belongs to image ``i``. The rows start as random points of the unit sphere and
    move only when ``update`` is called:

        v_i <- normalize(momentum * v_i + (1 - momentum) * f_i)

    An index that is given twice moves once, toward the mean of its embeddings, so the result
    depends neither on their order nor on how a batch is split. An embedding that is not finite,
    is zero, or is so long that its square overflows float32, and an index outside
    ``[0, num_instances)`` move nothing. They are counted in ``rejected_embeddings`` and
    ``rejected_indices``; see ``update`` for which of them raise.

    Args:
        num_instances: number of images, ``n``.
        embedding_dim: width of an embedding, ``d``.
        momentum: weight of the old row, in ``[0, 1)``; 0 replaces it, as the paper's text does.
        dtype: storage of the rows, see ``EmbeddingTable``. Coarse storage can lose small moves:
            see ``docs/performance.md`` for what each costs in accuracy.
        seed, backend, communicator, sharded: see ``EmbeddingTable``.
        storage: where the rows are, for a bank that is larger than the device: ``"host"`` or the
            path of a file; see ``EmbeddingTable``.

    Attributes:
        rows, bank_ops: see ``EmbeddingTable``.
        manifest: the Manifest of the images that the rows belong to, or None. It is saved and
            loaded with the rows.
        rejected_embeddings: variable ``()``, int32: embeddings rejected so far.
        rejected_indices: variable ``()``, int32: indices rejected so far.

    Raises:
        ValueError: an argument is out of its range.

    Source:
        Wu et al., CVPR 2018, section 3.1. The start is Gaussian and normalized; the official code
        draws from a uniform distribution and does not normalize. Momentum is the official code's.

    Example:
    ```python
    bank = MemoryBank(num_instances=50_000, embedding_dim=128, seed=0)
    bank.update(indices, features)
    scores, neighbors = bank.search(features, k=10)
    ```
    """

    def __init__(
        self,
        num_instances: int,
        embedding_dim: int,
        momentum: float = 0.5,
        dtype: StorageDtype = "float32",
        seed: int | None = None,
        backend: str | BankOps | None = None,
        storage: RowStorage = None,
        communicator: Communicator | None = None,
        sharded: bool = False,
        **kwargs: Any,
    ):
        require_count("num_instances", num_instances)
        require_number("momentum", momentum, 0, 1)
        fixed = {"name": "memory_bank"}  # so that one bank's state_dict fits the next
        own = {"storage": storage, "communicator": communicator, "sharded": sharded}
        super().__init__(
            num_instances, embedding_dim, dtype, seed, backend, **{**own, **fixed, **kwargs}
        )
        self.momentum = float(momentum)
        self.rejected_embeddings = self._counter("rejected_embeddings")
        self.rejected_indices = self._counter("rejected_indices")
        self.manifest: Manifest | None = None
        self.build(self.shape)  # nothing left to create; it registers the state with PyTorch

    @property
    def num_instances(self) -> int:
        """The number of images, ``n``."""
        return self.num_rows

    def update(self, indices: Tensor, features: Tensor, after: Tensor | None = None) -> None:
        """Move the rows of these images toward their new embeddings.

        Call it after the loss has read the old rows, in training only. No gradient flows.

        Args:
            indices: integers ``(batch,)`` in ``[0, num_instances)``.
            features: ``(batch, embedding_dim)``, unit embeddings.
            after: a float tensor computed from the old rows, such as the losses, which the update
                then waits for. Inside a step that XLA compiles (JAX, and TensorFlow with
                ``jit_compile``), give it: only if XLA sees that the reading is over does it write
                in place; else it copies the whole bank, twice.

        Raises:
            ValueError: indices that are not integers or not one-dimensional, or features of the
                wrong shape; and, where the values are in the host's memory, indices out of range
                or a row of zeros. The bank is then unchanged. In a compiled step and on an
                accelerator values cannot raise; what is wrong is left out and counted instead.

        Example: ``bank.update([3, 5], features[:2])``
        """
        indices = check_indices(indices, self.num_instances)
        features = check_features(features, self.embedding_dim)
        check_paired(indices, features)
        if indices.shape[0] == 0:
            return
        self.require_writable()
        features = stopped(features)
        if after is not None:
            indices = ops.where(false_after(after), -1, indices)
        known = self.contains(indices)
        usable = has_direction(features)
        self.rejected_indices.assign_add(count(ops.logical_not(known)))
        self.rejected_embeddings.assign_add(count(ops.logical_not(usable)))

        # What is rejected joins, with no weight, the group of an image that is not, so that every
        # entry names a row which this update may write.
        accepted = ops.logical_and(known, usable)
        indices = ops.cast(ops.where(known, indices, 0), "int32")
        indices = ops.where(accepted, indices, ops.take(indices, ops.argmax(accepted)))
        means, counts = _means(indices, features, ops.cast(accepted, "float32"))
        rows = self.bank_ops.rows(self.rows, indices)
        self.bank_ops.update_rows(self.rows, indices, *self._moved(rows, means, counts))

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Save the rows, the counters, and the manifest."""
        super().save_own_variables(store)
        if self.manifest is not None:
            store["manifest"] = self.manifest.to_array()

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what a file holds; see ``load_own_variables``.

        Without a manifest in the file the bank has none afterwards: the one that it had belongs to
        other rows.

        Raises:
            ValueError: see ``EmbeddingTable.load_own_variables``; or the manifest is damaged, or
                has another number of images than there are rows.
        """
        packed = arrays.pop("manifest", None)
        manifest = None if packed is None else Manifest.from_array(packed)
        values = self._checked(arrays)
        require(
            manifest is None or len(manifest) == self.num_instances,
            f"a file with a manifest of {0 if manifest is None else len(manifest)} images",
            f"one image for each of the {self.num_instances} rows",
        )
        self._take(values)
        self.manifest = manifest

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        config = super().get_config()
        return {
            "num_instances": config.pop("num_rows"),
            "momentum": self.momentum,
            **config,
        }

    def _moved(self, rows: Tensor, means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """``normalize(momentum v + (1 - momentum) f)``, and whether that has a direction."""
        mixed = self.momentum * rows + (1 - self.momentum) * means
        length = ops.norm(mixed, axis=1)
        moves = ops.logical_and(counts > 0, ops.logical_and(length > 0, length < math.inf))
        return mixed / ops.where(moves, length, 1.0)[:, None], moves

    def _counter(self, name: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=(), dtype="int32", initializer="zeros", trainable=False
        )


def _means(indices: Tensor, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """For every entry, the weighted mean of the features that share its index, and their count."""
    first = ops.cast(ops.argmax(indices[:, None] == indices[None, :], axis=1), "int32")
    weights = weights[:, None]
    weighted = ops.concatenate([ops.where(weights > 0, features, 0.0), weights], axis=1)
    sums = ops.segment_sum(weighted, first, num_segments=ops.shape(indices)[0])
    sums = ops.take(sums, first, axis=0)
    counts = sums[:, -1]
    return sums[:, :-1] / ops.maximum(counts, 1.0)[:, None], counts
