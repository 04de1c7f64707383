"""Fine-tuning with a few labels."""

import keras
import numpy as np

from instdisc_core.validation import require, require_count, require_number


def labelled_subset(labels, fraction, seed=0):
    """The indices of the images whose labels may be used: the same share of every class.

    Args:
        labels: ``(n,)``.
        fraction: share, in ``(0, 1]``; at least one image of each class is taken.
        seed: of the choice. A smaller fraction with the same seed is a part of a larger one.

    Example: ``indices = labelled_subset(labels, 0.01)``
    """
    require_number("fraction", fraction, 0, 1, open_below=True, open_above=False)
    rng, labels = np.random.default_rng(seed), np.asarray(labels)
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def fine_tuned_accuracy(
    model,
    train,
    test,
    fraction,
    epochs=30,
    learning_rate=0.01,
    batch_size=64,
    seed=0,
):
    """The accuracy on test images after fine-tuning the encoder with some of the labels.

    A linear classifier on the encoder's features is trained together with the encoder, through the
    model's augmentation, by SGD with momentum 0.9 and a cosine. Afterwards the encoder has the
    weights that it had before.

    Args:
        model: an InstanceDiscrimination.
        train, test: ImageSources with labels.
        fraction: share of the training labels, in ``(0, 1]``.
        epochs: over the labelled images.
        learning_rate: at its highest, of the encoder; the new classifier's is the same.
        batch_size: images a step.
        seed: of the choice of images, the classifier and the order.

    Returns:
        The accuracy in ``[0, 1]``.

    Raises:
        ValueError: a source without labels, or a class in the test images that is not trained.

    Source:
        Wu et al., section 4.3: 1, 2, 4, 10 and 20 % of the labels.

    Example: ``fine_tuned_accuracy(model, train, test, fraction=0.01)``
    """
    for name, source in (("train", train), ("test", test)):
        require(
            source.labels is not None, f"{name} images without labels", "an ImageSource with labels"
        )
    require_count("epochs", epochs)
    classes = np.unique(train.labels)
    unknown = np.setdiff1d(test.labels, classes).tolist()
    require(not unknown, f"test labels {unknown}", f"those of training: {classes.tolist()}")
    indices = labelled_subset(train.labels, fraction, seed)
    images, targets = train.images(indices), np.searchsorted(classes, train.labels[indices])
    before = model.encoder.get_weights()
    keras.utils.set_random_seed(seed)
    classifier = _Classifier(model.encoder, model.augmenter, len(classes))
    steps = epochs * -(-len(indices) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    classifier.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    try:
        classifier.fit(images, targets, batch_size=batch_size, epochs=epochs, verbose=0)
        logits = classifier.predict(test.ordered(), verbose=0)
    finally:
        model.encoder.set_weights(before)
    return float(np.mean(classes[np.argmax(logits, axis=1)] == test.labels))


class _Classifier(keras.Model):
    """The encoder with a linear classifier on its features, behind the augmentation."""

    def __init__(self, encoder, augmenter, num_classes):
        super().__init__(name="classifier")
        self.encoder, self.augmenter = encoder, augmenter
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images, training=False):
        """Logits ``(batch, num_classes)``."""
        if training and self.augmenter is not None:
            images = self.augmenter(images, training=True)
        return self.head(self.encoder(images, training=training))
