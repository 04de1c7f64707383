"""The kNN accuracy of every epoch."""

import keras

from instdisc_core.data import ImageSource
from instdisc_core.neighbors import knn_accuracy
from instdisc_core.validation import require_count


class KNNEvaluation(keras.callbacks.Callback):
    """Logs ``val_knn_accuracy``: how often an image's nearest neighbors agree with its label.

    The neighbors are training images. Their embeddings are either the rows of the memory bank,
    which cost nothing but lag behind the encoder and were seen augmented, or recomputed from
    ``train_images``, without augmentation.

    Args:
        images: held-out images, in the form that ``predict`` takes, or an ImageSource.
        labels: their labels, ``(queries,)``; integers or strings.
        train_labels: the labels of the training images, ``(num_instances,)``, in the order of
            their indices.
        train_images: the training images, to recompute their embeddings; None takes the bank's
            rows.
        k, temperature: see ``weighted_knn``.
        every: epochs from one evaluation to the next, at least 1.
        batch_size: of ``predict``.

    Raises:
        ValueError: at the end of an epoch, embeddings that are not finite; it counts them.

    Source:
        Wu et al., section 3.4. Don't choose a model by it on the test set.

    Example:
    ```python
    model.fit(images, indices, callbacks=[KNNEvaluation(held_out, their_labels, labels)])
    ```
    """

    def __init__(
        self,
        images,
        labels,
        train_labels,
        train_images=None,
        k=None,
        temperature=0.07,
        every=1,
        batch_size=256,
    ):
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

    def on_epoch_end(self, epoch, logs=None):
        """Evaluate, if it is this epoch's turn."""
        if (epoch + 1) % self.every or logs is None:
            return
        train = self.model.memory_bank.rows
        if self.train_images is not None:
            train = self._embeddings(self.train_images)
        logs["val_knn_accuracy"] = knn_accuracy(
            self._embeddings(self.images),
            self.labels,
            train,
            self.train_labels,
            k=self.k,
            temperature=self.temperature,
        )

    def _embeddings(self, images):
        if isinstance(images, ImageSource):
            images = images.ordered(self.batch_size)
        return self.model.predict(images, batch_size=self.batch_size, verbose=0)
