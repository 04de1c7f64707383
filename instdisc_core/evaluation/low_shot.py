"""Fine-tuning with a few labels."""

import keras
import numpy as np
from keras import ops

from instdisc_core.evaluation.labels import common_labels
from instdisc_core.validation import require, require_count, require_number


def labeled_subset(labels, fraction, seed=0):
    """The indices of the images whose labels may be used: the same share of every class.

    Args:
        labels: ``(n,)``.
        fraction: share, in ``(0, 1]``; at least one image of each class is taken.
        seed: of the choice. A smaller fraction with the same seed is a part of a larger one.

    Example: ``indices = labeled_subset(labels, 0.01)``
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
    weights that it had before, and the model's random generators their states.

    Args:
        model: an InstanceDiscrimination.
        train, test: ImageSources with labels.
        fraction: share of the training labels, in ``(0, 1]``.
        epochs: over the labeled images.
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
    require_count("epochs", epochs)
    train_labels, test_labels = common_labels(train, test)
    require(train_labels is not None, "images without labels", "ImageSources with labels")
    indices = labeled_subset(train_labels, fraction, seed)
    classes, targets = np.unique(train_labels[indices], return_inverse=True)
    batches = train.subset(indices).batches(batch_size, seed)
    classifier = _Classifier(model.encoder, model.augmenter, targets, len(classes), seed)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batches))
    classifier.compile(keras.optimizers.SGD(schedule, momentum=0.9))
    weights = model.encoder.get_weights()
    states = [(state, state.numpy()) for _, state in model.random_states()]
    order = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch)
    )
    try:
        classifier.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=[order])
        logits = classifier.predict(test.ordered(), verbose=0)
    finally:
        model.encoder.set_weights(weights)
        for state, value in states:
            state.assign(value)
    return float(np.mean(classes[np.argmax(logits, axis=1)] == test_labels))


class _Classifier(keras.Model):
    """The encoder with a linear classifier on its features, behind the augmentation."""

    def __init__(self, encoder, augmenter, targets, num_classes, seed):
        super().__init__(name="classifier")
        self.encoder, self.augmenter = encoder, augmenter
        self.targets = np.asarray(targets, "int32")
        start = keras.initializers.GlorotUniform(seed)
        self.head = keras.layers.Dense(num_classes, dtype="float32", kernel_initializer=start)

    def call(self, images, training=False):
        """Logits ``(batch, num_classes)``."""
        if training and self.augmenter is not None:
            images = self.augmenter(images, training=True)
        return self.head(self.encoder(images, training=training))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean cross-entropy; ``y`` is the index of each image, as batches of a source have."""
        targets = ops.take(self.targets, y, axis=0)
        losses = keras.losses.sparse_categorical_crossentropy(targets, y_pred, from_logits=True)
        return ops.mean(losses)
