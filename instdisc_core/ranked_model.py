"""A model that several ranks train together, each with its own part of every batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from instdisc_core.communicator import Communicator
from instdisc_core.data.order import OrderedBatches
from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.fitting import SameOnAllRanks, build_for, require_same_start, start_ranks
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.sharded_rows import parts
from instdisc_core.training_model import TrainingModel
from instdisc_core.types import Tensor


class RankedModel(TrainingModel):
    """What training on several ranks adds to ``TrainingModel``: nothing on one device.

    Attributes:
        communicator: the Communicator of the ranks.
        loss_settings: names of the attributes that all ranks must share, next to an objective.
    """

    communicator: Communicator = Communicator()
    loss_settings: tuple[str, ...] = ()
    memory_bank: MemoryBank | None
    _is_started = False
    _is_whole = False  # every rank evaluates all images by itself
    _batch_images: int | None = None  # of all ranks, in the batch of this step

    def whole_batch(
        self,
        embeddings: Tensor,
        y: Tensor | None = None,
        sample_weight: Tensor | None = None,
        views: int = 1,
    ) -> tuple[Tensor, Any, Tensor | None]:
        """The batch of all ranks in the order of one device: all first views, and so on.

        Args:
            embeddings: ``(views * batch, embedding_dim)`` of this rank.
            y, sample_weight: ``(batch,)``, or None.
            views: how many views of each image there are.
        """
        self._batch_images = None
        self.report_loss_of_all()
        if self.communicator.size == 1 or self._is_whole:
            return embeddings, y, sample_weight
        first, *others = ops.split(embeddings, views)
        first, y, sample_weight = self.communicator.whole_batch(first, y, sample_weight)
        others = [self.communicator.whole_batch(view)[0] for view in others]
        self._batch_images = first.shape[0]
        return ops.concatenate([first, *others]) if others else first, y, sample_weight

    def with_stand_in(self, images: Any) -> tuple[Any, Any]:
        """The images of this rank; if it has none, a black one, since few layers take no image.

        Returns:
            Images, and whether the rank has none: a boolean, or where a graph does not know it yet,
            an integer tensor. What is computed for it is then to be left out.
        """
        if self.communicator.size == 1:
            return images, False
        first = keras.tree.flatten(images)[0]
        has_none = first.shape[0] == 0
        if first.shape[0] is None:
            has_none = ops.cast(ops.shape(first)[0] == 0, "int32")
        self.communicator.is_idle = has_none is True
        if has_none is False:
            return images, False

        def filled(part: Tensor) -> Tensor:
            black = ops.zeros((has_none * 1, *part.shape[1:]), dtype=part.dtype)
            return ops.concatenate([part, black])

        return keras.tree.map_structure(filled, images), has_none

    def without_stand_in(self, rows: Tensor, has_none: Any) -> Tensor:
        """What was computed ``with_stand_in``; no rows, if this rank has no image."""
        return rows if has_none is False else rows[: ops.shape(rows)[0] * (1 - has_none)]

    def divided(self, rows: EmbeddingTable) -> AbstractContextManager[None]:
        """Inside, the ranks divide the work on the batch that they share."""
        return nullcontext() if self._is_whole else rows.bank_ops.divided()

    def report_loss_of_all(self) -> None:
        """Let the reported loss be the mean over the images of all ranks."""
        mean = getattr(self, "_loss_tracker", None)
        if self.communicator.processes == 1 or mean is None or "update_state" in vars(mean):
            return
        add = mean.update_state

        def add_whole_batch(loss: Tensor, sample_weight: Any = None) -> None:
            images = self._batch_images
            add(loss, sample_weight if images is None else images)

        mean.update_state = add_whole_batch

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The loss; see ``keras.Model.evaluate``. Nothing moves.

        ``source.batches()`` are shared: each process evaluates its part, and all must call it. Of
        anything else, such as arrays, each process evaluates all that it was given.
        """
        shared = isinstance(x, OrderedBatches) and x.part[1] > 1
        self._is_whole = self.communicator.processes > 1 and not shared
        self.report_loss_of_all()
        try:
            return super().evaluate(x, *args, **kwargs)
        finally:
            self._is_whole = False

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """See ``TrainingModel.own_callbacks``; and what compares the ranks."""
        compared = [SameOnAllRanks()] if self.communicator.processes > 1 else []
        return [*compared, *super().own_callbacks()]

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """One step; see ``keras.Model.train_on_batch``. Each rank gives its part of the batch."""
        if self.communicator.processes > 1 and not self._is_started:
            build_for(self, x)
            require_same_start(self, None)
            start_ranks(self)
            self._is_started = True
        return super().train_on_batch(x, *args, **kwargs)

    def states_drawn_apart(self) -> list[keras.Variable]:
        """The random states of augmentation and dropout; what ranks draw alike is left out."""
        alike = "random_state_objective", "random_state_support_set"
        return [
            state
            for name, state in self.random_states()
            if tuple(state.shape) == (2,) and not name.startswith(alike)
        ]

    @property
    def is_sharded(self) -> bool:
        """Whether this rank stores a part of the memory bank's rows."""
        return self.memory_bank is not None and any(
            hasattr(variable, "whole_shape") for variable in parts(self.memory_bank.rows)
        )

    def help_to_save(self) -> None:
        """What the other processes do while the first one saves: send their rows, and wait."""
        if self.memory_bank is not None and self.is_sharded:
            self.memory_bank.bank_ops.dump(self.memory_bank.rows)
            self.communicator.exchange(b"saved")

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the whole model; see ``PersistentModel.save``.

        All processes must call it if the bank is sharded, and the first one writes.
        """
        self._save(super().save, *args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Save the weights; see ``PersistentModel.save_weights`` and ``save``."""
        self._save(super().save_weights, *args, **kwargs)

    def _save(self, save: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if self.is_sharded and self.communicator.process:
            self.help_to_save()
            return
        distribution = keras.distribution.distribution()
        if distribution is not None:  # Keras builds an optimizer to compare with: not on all
            keras.distribution.set_distribution(None)
        try:
            save(*args, **kwargs)
        finally:
            if distribution is not None:
                keras.distribution.set_distribution(distribution)
        if self.is_sharded:
            self.communicator.exchange(b"saved")
