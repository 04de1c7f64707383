"""What methods with a row for each image share: targets that are indices of rows."""

from typing import Any

import keras
from keras import ops

from instdisc_core.data import Manifest
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.fitting import FlushedRows, RejectedIndices
from instdisc_core.types import Tensor
from instdisc_core.validation import check_indices, require


class InstanceModel(EmbeddingModel):
    """A model in which every image is a class of its own, with a row; its target is its index."""

    def instance_rows(self) -> EmbeddingTable:
        """The owner of the rows, one for each image; it counts ``rejected_indices``.

        A method, because Keras saves an object under the name of its first attribute.
        """
        raise NotImplementedError

    def require_targets(self, y: Any) -> None:
        """Raise if there are no targets.

        Raises:
            ValueError: ``y`` is None.
        """
        require(
            y is not None,
            "no targets",
            "the instance index of each image",
            "For an array: fit(images, numpy.arange(len(images))).",
        )

    def counted_rows(self, embeddings: Tensor, usable: Tensor | None) -> Tensor:
        """Embeddings, with a unit row for those of images that are not usable and do not count."""
        if usable is None:
            return embeddings
        any_unit_row = ops.one_hot(0, self.embedding_dim, dtype=embeddings.dtype)
        return ops.where(usable[:, None], embeddings, any_unit_row)

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """See ``EmbeddingModel.own_callbacks``; reports wrong indices, and flushes rows."""
        return [RejectedIndices(), FlushedRows(), *super().own_callbacks()]

    def check_data(self, manifest: Manifest) -> None:
        """Raise unless the data are those that the rows were trained on.

        ``fit`` remembers the manifest of the first ImageSource that it trains on, and it is saved
        with the model. Until then any data with an image for each row will do.

        Args:
            manifest: the Manifest of the data at hand.

        Raises:
            ValueError: it names the images that differ, or says how many rows there are.
        """
        n = self.instance_rows().num_rows
        require(
            len(manifest) == n,
            f"a data set with {len(manifest)} images",
            f"{n}, one for each row of the {self.instance_rows().name.replace('_', ' ')}",
            f"Build the model with num_instances={len(manifest)}.",
        )
        super().check_data(manifest)

    def target_indices(self, y: Tensor) -> Tensor:
        """See ``TrainingModel.target_indices``; those that have a row."""
        return check_indices(y, self.instance_rows().num_rows)
