"""Whether neighbors share labels, by hand; and what callbacks need of a model."""

import keras
import numpy as np
import pytest
from models import small_model, small_nnclr

from instdisc_core.callbacks import BankHealth, KNNEvaluation, NeighborLabels

N, DIM = 8, 4
IMAGES = np.random.default_rng(0).standard_normal((N, DIM)).astype("float32")


def plain():
    """A model whose embeddings are the images as unit rows."""
    parts = ("encoder", "projector")
    encoder, projector = (keras.layers.Activation("linear", name=part) for part in parts)
    return small_nnclr(encoder, support_set=4, projector=projector)


def test_neighbor_labels_by_hand():
    """Row 2 belongs to no known image; image 0 is its own nearest, and then finds image 1."""
    model = plain()
    rows = np.array([[5, 2, 1, 0], [4, 3, 1, 0], [5, 1, 0, 0], [0, 0, 1, 5]], "float32")
    model.support_set.enqueue(rows, [0, 1, -1, 3])
    images = np.array([[5, 2, 0, 0], [4, 3, 0, 0], [0, 0, 0, 5]], "float32")
    callback = NeighborLabels(images, list("aabb"), indices=[0, 1, 2])
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0, logs := {})
    assert logs["neighbor_label_agreement"] == 1, "0 and 1 find each other, 2 finds 3"
    callback.labels = np.array(list("abbb"))
    callback.on_epoch_end(0, logs)
    assert logs["neighbor_label_agreement"] == pytest.approx(1 / 3)
    callback.set_model(plain())
    callback.on_epoch_end(0, nothing := {})
    assert not nothing


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: BankHealth(IMAGES), "BankHealth in the fit of a model that has no memory bank"),
        (lambda: KNNEvaluation(IMAGES, IMAGES[:, 0], IMAGES[:, 0]), "without train_images"),
        (lambda: NeighborLabels(IMAGES, IMAGES[:, 0]), "a model that has no support set"),
    ],
)
def test_callbacks_say_what_they_need(callback, message):
    with pytest.raises(ValueError, match=rf"Received: .*{message}.*Expected"):
        small_nnclr(support_set=None).fit(IMAGES, verbose=0, callbacks=[callback()])


def test_neighbor_labels_needs_a_support_set_and_an_index_for_each_image():
    with pytest.raises(ValueError, match="no support set"):
        small_model().fit(
            IMAGES, np.arange(N), verbose=0, callbacks=[NeighborLabels(IMAGES, IMAGES)]
        )
    with pytest.raises(ValueError, match="2 indices of 8 images"):
        NeighborLabels(IMAGES, np.arange(N), [0, 1])
