"""Fine-tuning with a few labels."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core import native_layers
from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.labels import common_labels
from instdisc_core.types import Tensor
from instdisc_core.validation import require_count, require_number


def labeled_subset(labels: ArrayLike, fraction: float, seed: int = 0) -> np.ndarray:
    """The indices of the images whose labels are used: the same share of every class.

    Args:
        labels: ``(n,)``, integers or strings.
        fraction: share, in ``(0, 1]``; at least one image of each class is taken.
        seed: of the random choice. With equal seeds a smaller fraction is a subset of a larger one.

    Returns:
        Sorted integers in ``[0, n)``.

    Raises:
        ValueError: a fraction out of its range.

    Example:
    ```python
    from instdisc_core.evaluation.low_shot import labeled_subset

    hundredth = train.subset(labeled_subset(train.labels, 0.01))
    ```
    """
    require_number("fraction", fraction, 0, 1, open_below=True, open_above=False)
    rng, labels = np.random.default_rng(seed), np.asarray(labels)
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def fine_tuned_accuracy(
    model: EmbeddingModel,
    train: ImageSource,
    test: ImageSource,
    fraction: float,
    epochs: int = 30,
    learning_rate: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
) -> float:
    """The accuracy on test images after fine-tuning the encoder with some of the labels.

    A linear classifier on the encoder's features is trained together with the encoder, on augmented
    images, by SGD with momentum 0.9 and a cosine learning-rate schedule. Then the encoder's weights
    and the states of the model's random generators are restored.

    Args:
        model: an EmbeddingModel, such as InstanceDiscrimination or NNCLR.
        train, test: ImageSources with labels.
        fraction: share of the training labels, in ``(0, 1]``.
        epochs: over the labeled images.
        learning_rate: at the start of the schedule, of the encoder and of the classifier.
        batch_size: images per step. In each epoch others do not fill a batch, and are left out.
        seed: of the choice of images, the initial classifier and the order of the images.

    Returns:
        The accuracy in ``[0, 1]``.

    Raises:
        ValueError: a source without labels, or a class in the test images that is not trained.

    Source:
        Wu et al., section 4.3: 1, 2, 4, 10 and 20 % of the labels.

    Example: ``fine_tuned_accuracy(model, train, test, fraction=0.1, epochs=1)``
    """
    require_count("epochs", epochs)
    labels = common_labels(train, test)
    if labels is None:
        raise ValueError(
            "Received: images without labels. Expected ImageSources with labels. Give ImageFolder "
            "a folder with one subfolder for each class, or ImageArray its labels."
        )
    indices = labeled_subset(labels.train, fraction, seed)
    classes, targets = np.unique(labels.train[indices], return_inverse=True)
    # Without a small rest, by whose moments batch normalization would judge the test images.
    batches = train.subset(indices).batches(batch_size, seed, drop_remainder=True)
    batches.part = 0, 1  # one rank does it alone
    classifier = _Classifier(model, targets, len(classes), seed)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batches))
    classifier.compile(keras.optimizers.SGD(schedule, momentum=0.9))
    if not model.built:
        model.build((None, *train.size, 3))
    weights = model.encoder.get_weights()
    order = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch)
    )
    with model.preserved_random_states():
        try:
            classifier.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=[order])
            logits = classifier.predict(test.ordered(), verbose=0)
        finally:
            model.encoder.set_weights(weights)
    return float(np.mean(classes[np.argmax(logits, axis=1)] == labels.test))


class _Classifier(keras.Model):
    """Augmentation, preprocessing and encoder of a model, and a linear classifier on top."""

    def __init__(
        self, model: EmbeddingModel, targets: np.ndarray, num_classes: int, seed: int
    ) -> None:
        super().__init__(name="classifier")
        self.augmenter, self.preprocessing = model.augmenter, model.preprocessing
        self.encoder = model.encoder
        self.targets = np.asarray(targets, "int32")
        start = keras.initializers.GlorotUniform(seed)
        self.head = keras.layers.Dense(num_classes, dtype="float32", kernel_initializer=start)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Logits ``(batch, num_classes)``."""
        if training and self.augmenter is not None:
            images = self.augmenter(images, training=True)
        if self.preprocessing is not None:
            images = self.preprocessing(images)
        return self.head(native_layers.call(self.encoder, images, training))

    def compute_loss(
        self,
        x: Any = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The mean cross-entropy in nats; ``y`` is the index of each image in its source."""
        targets = ops.take(self.targets, y, axis=0)
        losses = keras.losses.sparse_categorical_crossentropy(targets, y_pred, from_logits=True)
        return ops.mean(losses)
