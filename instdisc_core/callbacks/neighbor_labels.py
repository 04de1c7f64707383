"""How often neighbors in the support set have the label of the image."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.data import ImageSource
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_count


class NeighborLabels(keras.callbacks.Callback):
    """Logs ``neighbor_label_agreement``: how often an image's neighbor has its label.

    The neighbor is the nearest row of NNCLR's support set that was made from another image.
    Images for which there is none do not count; without any, nothing is logged. The labels are
    only reported: training does not see them.

    Args:
        images: training images, in the form that ``predict`` takes, or an ImageSource.
        labels: the label of every training image, by its index ``(n,)``; integers or strings.
        indices: the indices of ``images``; None is 0, 1, 2, ...
        k: how many rows to search for one of another image, at least 1.
        every: measure in every so many epochs, at least 1.
        batch_size: of ``predict``.

    Raises:
        ValueError: indices of another number than the images, or an argument below 1; and from
            ``fit``, if the model has no support set.

    Example:
    ```python
    model = NNCLR(encoder, 8, support_set=20, augmenter=simclr_augmentation(32))
    model.compile(optimizer="sgd")
    model.fit(images, callbacks=[NeighborLabels(images, labels)])
    ```
    """

    def __init__(
        self,
        images: Tensor | ImageSource,
        labels: ArrayLike,
        indices: ArrayLike | None = None,
        k: int = 16,
        every: int = 1,
        batch_size: int = 256,
    ) -> None:
        super().__init__()
        for name, value in (("k", k), ("every", every)):
            require_count(name, value)
        indices = np.arange(len(images)) if indices is None else np.asarray(indices)
        counts = len(indices), len(images)
        require(
            counts[0] == counts[1], f"{counts[0]} indices of {counts[1]} images", "one for each"
        )
        self.images, self.indices, self.labels = images, indices, np.asarray(labels)
        self.k, self.every, self.batch_size = k, every, batch_size

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Raise if there is nothing to search."""
        require(
            getattr(self.model, "support_set", None) is not None,
            "NeighborLabels in the fit of a model that has no support set",
            "an NNCLR model with a support set",
            "KNNEvaluation measures other models.",
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure, in every ``every``-th epoch."""
        if (epoch + 1) % self.every or logs is None:
            return
        images, support_set = self.images, self.model.support_set
        if isinstance(images, ImageSource):
            images = images.ordered(self.batch_size)
        rows = self.model.predict(images, batch_size=self.batch_size, verbose=0)
        found = support_set.search(rows, min(self.k, support_set.capacity)).indices
        positions = ops.convert_to_numpy(found)
        others = ops.convert_to_numpy(support_set.image_indices)[positions]
        usable = (positions >= 0) & (others >= 0) & (others != self.indices[:, None])
        nearest = np.take_along_axis(others, usable.argmax(axis=1)[:, None], axis=1)[:, 0]
        known = usable.any(axis=1)
        if known.any():
            same = self.labels[nearest[known]] == self.labels[self.indices[known]]
            logs["neighbor_label_agreement"] = float(np.mean(same))
