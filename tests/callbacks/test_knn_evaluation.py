"""When KNNEvaluation votes, with which settings and which neighbors."""

from types import SimpleNamespace

import numpy as np
import pytest

from instdisc_core.callbacks import KNNEvaluation
from instdisc_core.data import ImageArray

# One training image nearby, two of another class a little further away.
TRAIN = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6]], "float32")


QUERY, TRAIN_LABELS = np.array([[1, 0]], "float32"), ["near", "far", "far"]


class Echo:
    """A model whose embeddings are its images."""

    def __init__(self, rows=TRAIN):
        self.memory_bank = SimpleNamespace(rows=rows, bank_ops=None, num_rows=len(rows))
        self.batch_sizes = []

    def predict(self, images, batch_size=None, verbose="auto"):
        if isinstance(images, np.ndarray):
            self.batch_sizes.append(batch_size)
            return images
        batches = [images[i][0] for i in range(len(images))]  # of an ImageSource
        self.batch_sizes.append(len(batches[0]))
        return np.concatenate(batches)[:, 0, 0, :2].astype("float32")


def accuracies(callback, model, epochs=1):
    """What it logs in each epoch; None where it logs nothing."""
    callback.set_model(model)
    found = []
    for epoch in range(epochs):
        logs = {}
        callback.on_epoch_end(epoch, logs)
        found.append(logs.pop("val_knn_accuracy", None))
        assert not logs
    return found


@pytest.mark.parametrize(
    ("settings", "winner"),
    [
        ({}, "near"),
        ({"k": 1, "temperature": 10.0}, "near"),
        ({"k": 3, "temperature": 10.0}, "far"),
        ({"k": 3, "temperature": 0.07}, "near"),
        ({"temperature": 10.0}, "far"),  # all three vote
    ],
)
def test_knn_evaluation_votes_with_its_k_and_temperature(settings, winner):
    for label in ("near", "far"):
        callback = KNNEvaluation(QUERY, [label], TRAIN_LABELS, **settings)
        assert accuracies(callback, Echo()) == [float(label == winner)]


def test_knn_evaluation_takes_the_bank_s_rows_or_the_training_images():
    opposite = Echo(-TRAIN)
    assert accuracies(KNNEvaluation(QUERY, ["near"], TRAIN_LABELS, k=1), opposite) == [0]
    fresh = KNNEvaluation(QUERY, ["near"], TRAIN_LABELS, TRAIN, k=1, batch_size=5)
    assert accuracies(fresh, opposite) == [1]
    assert opposite.batch_sizes == [256, 5, 5]


def test_knn_evaluation_comes_every_few_epochs():
    callback = KNNEvaluation(QUERY, ["near"], TRAIN_LABELS, every=3)
    assert accuracies(callback, Echo(), epochs=7) == [None, None, 1, None, None, 1, None]
    callback.on_epoch_end(2, None)  # Keras may have no logs


def test_knn_evaluation_of_an_image_source():
    pixels = np.zeros((5, 1, 1, 3), "uint8")
    pixels[:, 0, 0, :2] = [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]
    callback = KNNEvaluation(
        ImageArray(pixels), list("aabba"), list("ab"), ImageArray(pixels[[0, 2]]), 1, batch_size=2
    )
    model = Echo()
    assert accuracies(callback, model) == [0.8]
    assert model.batch_sizes == [2, 2]


def test_knn_evaluation_names_what_is_not_finite():
    queries = np.array([[1, 0], [np.nan, 0], [1, 0], [0, np.inf]], "float32")
    with pytest.raises(ValueError, match=r"2 of 4 rows are not finite: 1, 3\."):
        accuracies(KNNEvaluation(queries, ["near"] * 4, TRAIN_LABELS), Echo())


def test_labels_that_do_not_fit_are_named_before_the_first_step():
    for labels, train_labels in ((["near"] * 2, TRAIN_LABELS), (["near"], TRAIN_LABELS[:-1])):
        callback = KNNEvaluation(QUERY, labels, train_labels)
        callback.set_model(Echo())
        with pytest.raises(ValueError, match=r"labels for .* images\. Expected one label for each"):
            callback.on_train_begin()
