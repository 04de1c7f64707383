"""Whitened features vary in every direction, and a model that whitens is one as any other."""

import sys

import keras
import numpy as np
import pytest
from models import small_model

from instdisc_core.data import ImageArray
from instdisc_core.evaluation import knn_accuracy, whitened, whitening
from instdisc_core.evaluation.features import encoder_features

module = sys.modules[whitening.__module__]
RNG = np.random.default_rng(0)
# Of six directions one carries most of the variance.
FEATURES = (RNG.normal(size=(400, 6)) * [9, 1, 1, 1, 1, 1] + 5).astype("float32")


def covariance(white, features):
    return np.cov((features - white.mean) @ white.matrix, rowvar=False, bias=True)


def test_features_vary_as_much_in_every_direction():
    white = whitening(FEATURES, shrinkage=1e-6)
    np.testing.assert_allclose(covariance(white, FEATURES), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(white(FEATURES), axis=1), 1, atol=1e-6)


def test_shrinkage_leaves_small_directions_small():
    spread = np.linalg.eigvalsh(covariance(whitening(FEATURES, shrinkage=0.1), FEATURES))
    variances = np.linalg.eigvalsh(np.cov(FEATURES, rowvar=False, bias=True))
    np.testing.assert_allclose(spread, variances / (variances + 0.1 * variances.mean()), rtol=1e-3)


def test_rows_in_several_blocks(monkeypatch):
    whole = whitening(FEATURES)(FEATURES)
    monkeypatch.setattr(module, "BLOCK", 150)
    np.testing.assert_allclose(abs(whitening(FEATURES)(FEATURES)), abs(whole), atol=1e-5)


def test_fewer_images_than_features():
    white = whitening(FEATURES[:3])
    assert np.all(np.isfinite(white(FEATURES)))


def test_neighbors_that_one_direction_hid_are_found():
    labels = np.random.default_rng(1).integers(0, 2, 400)
    features = FEATURES * [40, 1, 1, 1, 1, 1] + np.where(labels, 2, -2)[:, None] * np.eye(6)[1]
    train, test = slice(0, 300), slice(300, 400)
    white = whitening(features[train])
    found = [
        knn_accuracy(f(features[test]), labels[test], f(features[train]), labels[train], k=20)
        for f in (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), white)
    ]
    assert found[1] > found[0] + 0.1


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (FEATURES[:1], "Received: 1 rows of features"),
        (np.ones((5, 2)), "Received: 5 rows of features that are all the same"),
        (np.full((5, 2), np.nan), "Received: features in which 5 of 5 rows are not finite"),
    ],
)
def test_what_cannot_be_whitened(features, message):
    with pytest.raises(ValueError, match=message):
        whitening(features)
    with pytest.raises(ValueError, match="shrinkage=0"):
        whitening(FEATURES, shrinkage=0)


def test_a_whitened_model_is_saved_and_loaded(tmp_path):
    source = ImageArray(np.random.default_rng(1).integers(0, 256, (12, 4, 4, 3)).astype("uint8"))
    encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Flatten()])
    model = small_model(encoder, 12, compiled=False)
    model.build((None, 4, 4, 3))
    searched = whitened(model, source)
    embeddings = searched.predict(source.ordered(), verbose=0)
    expected = whitening(encoder_features(model, source))(encoder_features(model, source))
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    searched.save(tmp_path / "searched.keras")
    loaded = keras.saving.load_model(tmp_path / "searched.keras")
    np.testing.assert_allclose(loaded.predict(source.ordered(), verbose=0), embeddings, atol=1e-6)
