"""The support set: a queue of embeddings, in which images find their nearest neighbors."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.gradients import false_after, stopped
from instdisc_core.normalization import has_direction
from instdisc_core.sums import count
from instdisc_core.types import SearchResult, StorageDtype, Tensor
from instdisc_core.validation import check_indices, check_paired, require, require_count

LARGEST = 2**31 - 1  # index of an image
DRAWS = 2**30  # a random integer below it, modulo a small count, is uniform to 1e-6


class Neighbors(NamedTuple):
    """The neighbor of each image of a batch.

    Attributes:
        rows: float32 ``(batch, embedding_dim)``, unit rows, constants. Of an image without a
            neighbor, its own embedding as a unit row.
        positions: int32 ``(batch,)``, where they are in the support set; -1 without a neighbor.
        images: int32 ``(batch,)``, the index of the image that each row was made from; -1 where it
            is not known.
    """

    rows: Tensor
    positions: Tensor
    images: Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class SupportSet(EmbeddingTable):
    """A queue of the unit embeddings that were seen last: first in, first out.

    ``enqueue`` writes a batch of any size over the oldest rows. After the last row it continues at
    row 0; of more embeddings than there are rows, the last ones stay. Only rows that were written
    can be found by ``neighbors`` and ``search``, so a new support set has no neighbors; the other
    methods of an EmbeddingTable read the random rows that it starts with, too. An embedding that is
    not finite or has no direction is left out and counted. Look neighbors up before the batch is
    enqueued: else each image finds itself.

    Args:
        capacity: number of rows.
        embedding_dim, dtype, backend: see ``EmbeddingTable``.
        seed: of the neighbors that are drawn among several.

    Attributes:
        next: variable ``()``, int32: the row that is written next.
        fill: variable ``()``, int32: how many rows have been written, at most ``capacity``.
        image_indices: variable ``(capacity,)``, int32: the image of each row; -1 if not known.
        rejected_embeddings: variable ``()``, int32: embeddings left out so far.

    Raises:
        ValueError: an argument is out of its range.

    Source:
        Dwibedi et al., ICCV 2021 (NNCLR), section 3.2. The paper's queue starts with random rows,
        which can be neighbors; this one starts empty.

    Example:
    ```python
    support_set = SupportSet(capacity=16_384, embedding_dim=128)
    support_set.enqueue(features)
    rows = support_set.neighbors(features[:2]).rows
    ```
    """

    def __init__(
        self,
        capacity: int,
        embedding_dim: int,
        dtype: StorageDtype = "float32",
        seed: int | None = None,
        backend: str | BankOps | None = None,
        **kwargs: Any,
    ):
        require_count("capacity", capacity)
        super().__init__(
            capacity, embedding_dim, dtype, seed, backend, **{"name": "support_set", **kwargs}
        )
        self.next = self._integers("next")
        self.fill = self._integers("fill")
        self.image_indices = self._integers("image_indices", (self.capacity,), -1)
        self.rejected_embeddings = self._integers("rejected_embeddings")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.build(self.shape)  # nothing left to create; it registers the state with PyTorch

    @property
    def capacity(self) -> int:
        """The number of rows."""
        return self.num_rows

    def top_k(self, features: Tensor, k: int) -> SearchResult:
        """See ``EmbeddingTable.top_k``; a row that was not written has no score and index -1."""
        scores, indices = ops.cond(
            self.fill >= self.capacity,
            lambda: tuple(self.bank_ops.top_k(features, self.rows, k)),
            lambda: tuple(self.bank_ops.top_k_of_first(features, self.rows, k, self.fill)),
        )
        return SearchResult(scores, ops.where(ops.isfinite(scores), indices, -1))

    def neighbors(self, features: Tensor, k: int = 1, training: bool = False) -> Neighbors:
        """The nearest row of each embedding, or in training one of the ``k`` nearest.

        Args:
            features: ``(batch, embedding_dim)``, of any length.
            k: in ``[1, capacity]``.
            training: draw one of the ``k`` nearest rows, or of all if they are fewer, for each
                embedding; else take the nearest.

        Returns:
            Neighbors.

        Raises:
            ValueError: features of the wrong shape, or k out of range.

        Example: ``SupportSet(8, 128).neighbors(features).positions  # -1: it is empty``
        """
        features = stopped(self._of_its_width(features))
        require_count("k", k)
        require(k <= self.capacity, f"k={k}", f"at most the {self.capacity} rows")
        own = _directed(features)[0]
        positions = self.found(own, k if training else 1).indices
        if training and k > 1:
            drawn = keras.random.randint(
                ops.shape(positions[:, :1]), 0, DRAWS, seed=self.seed_generator
            )
            among = ops.maximum(ops.minimum(ops.convert_to_tensor(self.fill), k), 1)
            positions = ops.take_along_axis(positions, drawn % among, axis=1)
        positions = positions[:, 0]
        exists, chosen = positions >= 0, ops.maximum(positions, 0)
        rows = ops.where(exists[:, None], self.bank_ops.rows(self.rows, chosen), own)
        images = ops.where(exists, ops.take(self.image_indices, chosen, axis=0), -1)
        return Neighbors(rows, positions, images)

    def enqueue(
        self, features: Tensor, images: Tensor | None = None, after: Tensor | None = None
    ) -> None:
        """Write embeddings over the oldest rows, as unit rows, in their order.

        Args:
            features: ``(batch, embedding_dim)``, of any length, and any number of them.
            images: integers ``(batch,)``, the index of the image of each, or -1; None if not known.
            after: see ``MemoryBank.update``.

        Raises:
            ValueError: features of the wrong shape, images of another number, or indices that are
                not integers or less than -1. The support set is then unchanged.

        Example: ``SupportSet(8, 128).enqueue(features, images=indices)``
        """
        features = self._of_its_width(features)
        if images is not None:
            images = check_indices(images, LARGEST, name="images", of="images", least=-1)
            images = known_images(images)
            check_paired(images, features)
        if features.shape[0] == 0:
            return
        self.require_writable()
        rows, accepted = _directed(stopped(features))
        if after is not None:
            accepted = ops.logical_and(accepted, ops.logical_not(false_after(after)))
        batch = ops.shape(rows)[0]
        if images is None:
            images = ops.full((batch,), -1, dtype="int32")

        # What is rejected comes first, then the others in their order; the last ones are kept.
        order = ops.arange(batch, dtype="int32") + batch * ops.cast(accepted, "int32")
        kept = ops.argsort(order)[-self.capacity :]
        rows, images, moves = (ops.take(x, kept, axis=0) for x in (rows, images, accepted))
        total, last = count(accepted), ops.shape(rows)[0]
        positions = (self.next + total - last + ops.arange(last, dtype="int32")) % self.capacity
        self.bank_ops.update_rows(self.rows, positions, rows, moves)
        images = ops.where(moves, images, ops.take(self.image_indices, positions, axis=0))
        self.image_indices.assign(
            ops.scatter_update(self.image_indices, positions[:, None], images)
        )
        self.next.assign((self.next + total) % self.capacity)
        self.fill.assign(ops.minimum(self.fill + total, self.capacity))
        self.rejected_embeddings.assign_add(batch - total)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        config = super().get_config()
        return {"capacity": config.pop("num_rows"), **config}

    def _checked(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        values = super()._checked(arrays)
        following, fill = (int(value) for value in values[-4:-2])
        whole = 0 <= following < self.capacity and 0 <= fill <= self.capacity
        require(
            whole and fill in (following, self.capacity),
            f"a file of {self.name} in which row {following} of {self.capacity} is next and {fill} "
            "are written",
            "a support set as enqueue leaves it",
            "The file is damaged.",
        )
        return values

    def _of_its_width(self, features: Tensor) -> Tensor:
        """Embeddings, checked for their shape alone: rows of zeros are left out, not an error."""
        features = features if hasattr(features, "dtype") else np.asarray(features, "float32")
        require(
            len(features.shape) == 2 and features.shape[1] == self.embedding_dim,
            f"features of shape {tuple(features.shape)}",
            f"shape (batch, {self.embedding_dim}), one embedding in each row",
        )
        return features

    def _integers(self, name: str, shape: tuple[int, ...] = (), value: int = 0) -> keras.Variable:
        start = keras.initializers.Constant(value)
        return self.add_weight(
            name=name, shape=shape, dtype="int32", initializer=start, trainable=False
        )


def known_images(indices: Tensor) -> Tensor:
    """Indices of images as int32; -1, as of an image that is not known, where they are no index.

    A compiled step cannot raise for those.
    """
    known = ops.logical_and(indices >= 0, indices < LARGEST)
    return ops.cast(ops.where(known, indices, -1), "int32")


def _directed(features: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings as unit rows, and which of them have a direction."""
    square = ops.sum(ops.square(features), axis=1)
    usable = has_direction(features)
    return features / ops.sqrt(ops.where(usable, square, 1.0))[:, None], usable
