"""Several augmented views of each image in a step."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import small_model

from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.testing import reference

N, DIM = 6, 4
IMAGES = np.random.default_rng(0).standard_normal((N, DIM)).astype("float32")
INDICES = np.arange(N, dtype="int32")


@keras.saving.register_keras_serializable("tests")
class Turn(keras.layers.Layer):
    """Swaps the first two pixels of every other image of what it is given."""

    def call(self, images, training=False):
        count = keras.ops.shape(images)[0]
        odd = keras.ops.arange(count) % 2 == 1
        swapped = keras.ops.take(images, keras.ops.array([1, 0, 2, 3]), axis=1)
        return keras.ops.where(odd[:, None], swapped, images)


def model_of(views=2, **kwargs):
    return small_model(
        keras.layers.Dense(DIM, use_bias=False, kernel_initializer="identity"),
        N,
        DIM,
        NonParametricSoftmax(0.5),
        optimizer=keras.optimizers.SGD(0.0),
        projector=keras.layers.Activation("linear"),
        augmenter=Turn(),
        views=views,
        **kwargs,
    )


def views_of(images):
    """Both views of each image, as the model stacks them, as unit rows."""
    both = np.concatenate([images, images])
    both[1::2] = both[1::2][:, [1, 0, 2, 3]]
    return unit_rows(both)


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_training_returns_all_first_views_and_then_all_second_ones():
    model = model_of()
    np.testing.assert_allclose(numpy(model(IMAGES[:3], training=True)), views_of(IMAGES[:3]), 1e-5)
    assert model(IMAGES[:3]).shape == (3, DIM)
    assert model.predict(IMAGES, verbose=0).shape == (N, DIM)


def test_every_view_is_the_image_s_own_and_its_row_moves_once():
    model = model_of()
    before = numpy(model.memory_bank.rows)
    logs = model.fit(IMAGES[:3], INDICES[:3], batch_size=3, verbose=0).history
    features, indices = views_of(IMAGES[:3]), np.tile(INDICES[:3], 2)
    losses, _ = reference.softmax(features, indices, before, 0.5)
    np.testing.assert_allclose(logs["loss"], [losses.mean()], rtol=1e-5)
    expected = reference.update(before, indices, features, 0.5)
    np.testing.assert_allclose(numpy(model.memory_bank.rows), expected, atol=2e-6)


def test_sample_weights_count_for_every_view():
    model = model_of()
    before = numpy(model.memory_bank.rows)
    weights = np.array([1.0, 0.0, 3.0], "float32")
    loss = model.train_on_batch(IMAGES[:3], INDICES[:3], sample_weight=weights)
    losses, _ = reference.softmax(views_of(IMAGES[:3]), np.tile(INDICES[:3], 2), before, 0.5)
    np.testing.assert_allclose(loss, np.mean(np.tile(weights, 2) * losses), rtol=1e-5)


class MeanIndex(keras.metrics.Metric):
    """The mean target of the embeddings, with their number and their weights."""

    def __init__(self):
        super().__init__(name="index")
        self.total = self.add_weight(name="total", initializer="zeros")
        self.weight = self.add_weight(name="weight", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        first = keras.ops.cast(keras.ops.abs(y_pred[:, 0]), "float32")
        weights = first if sample_weight is None else first * sample_weight
        self.total.assign_add(keras.ops.sum(weights * keras.ops.cast(y_true, "float32")))
        self.weight.assign_add(keras.ops.sum(weights))

    def result(self):
        return self.total / self.weight


@pytest.mark.parametrize("weights", [None, np.array([1.0, 0.0, 3.0], "float32")])
def test_metrics_see_every_view_with_its_own_index(weights):
    model = model_of()
    kind = "metrics" if weights is None else "weighted_metrics"
    model.compile(optimizer=keras.optimizers.SGD(0.0), **{kind: [MeanIndex()]})
    batch, own = (IMAGES[:3], INDICES[:3]), np.ones(3) if weights is None else weights
    logs = model.fit(*batch, sample_weight=weights, batch_size=3, shuffle=False, verbose=0).history
    size = np.abs(views_of(IMAGES[:3])[:, 0]) * np.tile(own, 2)
    expected = size @ np.tile(INDICES[:3], 2) / size.sum()
    np.testing.assert_allclose(logs["index"], [expected], rtol=1e-5)

    measured = model.evaluate(*batch, sample_weight=weights, verbose=0, return_dict=True)
    size = np.abs(unit_rows(IMAGES[:3])[:, 0]) * own
    np.testing.assert_allclose(measured["index"], size @ INDICES[:3] / size.sum(), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:1 images in epoch 1")
def test_an_image_that_is_not_finite_trains_nothing_and_is_counted_once():
    model = model_of(non_finite="skip")
    before = numpy(model.memory_bank.rows)
    images = IMAGES[:4].copy()
    images[1, 0] = np.nan
    model.fit(images, INDICES[:4], batch_size=4, verbose=0)
    assert int(numpy(model.rejected_images)) == 1
    moved = np.any(numpy(model.memory_bank.rows) != before, axis=1)
    assert moved.tolist() == [True, False, True, True, False, False]


def test_evaluation_sees_each_image_once():
    one, two = model_of(1), model_of(2)
    for model in (one, two):
        model.build(IMAGES.shape)
    losses = [model.evaluate(IMAGES, INDICES, verbose=0) for model in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_the_number_of_views_is_saved():
    model = model_of(3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert again.views == 3
    assert again.get_config() == model.get_config()


@pytest.mark.parametrize(("views", "augmenter"), [(0, Turn()), (1.5, Turn()), (2, None)])
def test_views_need_an_augmenter(views, augmenter):
    with pytest.raises(ValueError, match=rf"Received: views={views}.*Expected"):
        InstanceDiscrimination(keras.layers.Flatten(), N, DIM, views=views, augmenter=augmenter)
