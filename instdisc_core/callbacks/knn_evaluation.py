"""The kNN accuracy of every epoch."""

from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.data import ImageSource
from instdisc_core.evaluation.neighbors import knn_accuracy
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_count


class KNNEvaluation(keras.callbacks.Callback):
    """Logs ``val_knn_accuracy``: the accuracy of ``weighted_knn`` on held-out images.

    The neighbors are training images. Their embeddings are either the rows of the memory bank,
    which take no time to compute, but are averages over earlier states of the encoder and
    augmented images; or recomputed from ``train_images``, without augmentation.

    Args:
        images: held-out images, in the form that ``predict`` takes, or an ImageSource.
        labels: their labels, ``(queries,)``; integers or strings.
        train_labels: the labels of the training images, ``(num_instances,)``, in the order of
            their indices.
        train_images: the training images, to recompute their embeddings; None uses the bank's
            rows. A model without a memory bank, such as NNCLR, needs them.
        k, temperature: see ``weighted_knn``.
        every: evaluate in every so many epochs, at least 1.
        batch_size: of ``predict``.

    Raises:
        ValueError: from ``fit``, if there are neither ``train_images`` nor a memory bank, or not
            one label for each image; at the end of an epoch, if embeddings are not finite.

    Source:
        Wu et al., section 3.4. Don't choose a model by this accuracy on the test set.

    Example:
    ```python
    knn = KNNEvaluation(test.images(), test.labels, train.labels)
    model.fit(images, indices, callbacks=[knn])
    ```
    """

    def __init__(
        self,
        images: Tensor | ImageSource,
        labels: ArrayLike,
        train_labels: ArrayLike,
        train_images: Tensor | ImageSource | None = None,
        k: int | None = None,
        temperature: float = 0.07,
        every: int = 1,
        batch_size: int = 256,
    ) -> None:
        super().__init__()
        require_count("every", every)
        self.images = images
        self.labels = labels
        self.train_labels = train_labels
        self.train_images = train_images
        self.k = k
        self.temperature = temperature
        self.every = every
        self.batch_size = batch_size

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Raise if there are no training embeddings."""
        require(
            self.train_images is not None or self.model.memory_bank is not None,
            "KNNEvaluation without train_images, and a model without a memory bank",
            "train_images",
            "Their embeddings are then recomputed.",
        )
        trained = self.train_images
        rows = self.model.memory_bank.num_rows if trained is None else _length(trained)
        for what, labels, images in (
            ("labels", self.labels, _length(self.images)),
            ("train_labels", self.train_labels, rows),
        ):
            require(
                images in (None, len(np.asarray(labels))),
                f"{len(np.asarray(labels))} {what} for {images} images",
                "one label for each",
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluate, in every ``every``-th epoch."""
        if (epoch + 1) % self.every or logs is None:
            return
        if self.train_images is not None:
            train, backend = self._embeddings(self.train_images), None
        else:
            bank = self.model.memory_bank
            train, backend = bank.rows, bank.bank_ops
        logs["val_knn_accuracy"] = knn_accuracy(
            self._embeddings(self.images),
            self.labels,
            train,
            self.train_labels,
            k=self.k,
            temperature=self.temperature,
            backend=backend,
        )

    def _embeddings(self, images: Tensor | ImageSource) -> np.ndarray:
        if isinstance(images, ImageSource):
            images = images.ordered(self.batch_size)
        return self.model.predict(images, batch_size=self.batch_size, verbose=0)


def _length(images: Tensor | ImageSource) -> int | None:
    """The number of images; None where it is not known."""
    return len(images) if hasattr(images, "__len__") else None
