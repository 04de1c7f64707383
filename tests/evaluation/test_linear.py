"""Linear classifiers."""

from types import SimpleNamespace

import numpy as np
import pytest
from problems import blobs

from instdisc_core.evaluation import linear, linear_accuracy

pytestmark = pytest.mark.framework_independent


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_separable_classes_are_separated_and_noise_is_not(classifier):
    features, labels = blobs()
    test, test_labels = blobs(seed=1)
    assert linear_accuracy(features, labels, test, test_labels, classifier)[0] == 1
    noise, _ = blobs(600, 3, 50.0)
    answers = np.random.default_rng(1).integers(0, 3, 600)
    assert linear_accuracy(noise, np.arange(600) % 3, noise, answers, classifier)[0] < 0.5


def test_the_strength_is_chosen_without_the_test_images():
    """Whatever the test labels say, the same strength is chosen."""
    features, labels = blobs(spread=0.8)
    chosen = {
        linear_accuracy(features, labels, features, np.roll(labels, shift))[1] for shift in (0, 1)
    }
    assert len(chosen) == 1
    assert linear_accuracy(features, labels, features, labels, strengths=(0.5,))[1] == 0.5


def test_test_images_do_not_shape_the_features():
    """Only the training images' mean and variance are used: shifted test features are wrong."""
    features, labels = blobs(spread=0.3)
    assert linear_accuracy(features, labels, features, labels)[0] > 0.9
    assert linear_accuracy(features, labels, features + 100, labels)[0] < 0.5


def test_the_last_fit_is_on_all_training_images():
    """One image of class 2: only a classifier that has seen it can answer it."""
    features, labels = blobs(41, 2)
    features = np.concatenate([features, 5 * np.eye(8)[7:]])
    labels = np.append(labels, 2)
    answers = [
        linear_accuracy(features, labels, features[-1:], [2], strengths=(1.0, 2.0), seed=seed)[0]
        for seed in range(16)  # in some of which it is held out first
    ]
    assert answers == [1] * 16


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_the_strength_is_chosen_on_images_that_were_not_fitted(classifier):
    """Shared features tell the class; and each image has a feature of its own.

    A quarter of the labels is wrong. With little regularization the classifier memorizes even
    those, but on images that were held out it is no better than the other, which is given first.
    """
    image = np.arange(96)
    truth = image % 2
    labels = np.where(image % 8 < 2, 1 - truth, truth)
    features = np.column_stack([np.tile(2 * truth[:, None] - 1, 20), np.eye(96)])
    arguments = features, labels, features, labels, classifier
    assert linear_accuracy(*arguments, strengths=(1e3,))[0] == 1
    assert linear_accuracy(*arguments, strengths=(1e-3,))[0] == 0.75
    for seed in range(5):
        assert linear_accuracy(*arguments, strengths=(1e-3, 1e3), seed=seed)[1] == 1e-3


def test_the_strength_with_the_best_score_is_taken(monkeypatch):
    scores, fitted = {0.1: 0.2, 1.0: 0.9, 10.0: 0.5}, []

    def fit(classifier, strength, features, labels, seed):
        fitted.append((strength, len(features)))
        return SimpleNamespace(score=lambda features, labels: scores[strength])

    monkeypatch.setattr(linear, "_fitted", fit)
    features, labels = blobs()
    assert linear_accuracy(features, labels, features, labels, strengths=tuple(scores)) == (0.9, 1)
    assert fitted == [(0.1, 96), (1.0, 96), (10.0, 96), (1.0, 120)]


def test_features_of_any_scale_are_classified():
    features, labels = blobs(spread=0.3)
    scaled = features * np.logspace(-4, 4, 8) + 100
    assert linear_accuracy(scaled, labels, scaled, labels)[0] > 0.95


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train_labels": np.zeros(7)}, r"train_features of shape \(120, 8\) and labels"),
        ({"labels": np.zeros((120, 1))}, "features of shape"),
        ({"classifier": "tree"}, "classifier='tree'"),
        ({"train_labels": np.zeros(120)}, "labels of one class"),
    ],
)
def test_linear_arguments_are_checked(change, match):
    features, labels = blobs()
    arguments = {"train_labels": labels, "features": features, "labels": labels, **change}
    with pytest.raises(ValueError, match=match):
        linear_accuracy(features, **arguments)


def test_features_that_are_not_finite_are_named():
    rows, answers = np.eye(9), np.arange(9) % 2
    wrong = rows.copy()
    wrong[[2, 4], 0] = np.nan, np.inf
    for arguments in ((wrong, answers, rows, answers), (rows, answers, wrong, answers)):
        with pytest.raises(ValueError, match=r"features in which 2 of 9 rows .* finite: 2, 4\."):
            linear_accuracy(*arguments)


@pytest.mark.parametrize("seed", range(6))
def test_a_class_of_one_image_is_always_fitted_on(seed):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 5)), np.r_[[0] * 39, 1]
    assert 0 <= linear_accuracy(features, labels, features, labels, seed=seed).accuracy <= 1


def test_where_nothing_can_be_held_out_the_strength_is_1():
    features = np.eye(3)
    found = linear_accuracy(features, [0, 1, 2], features, [0, 1, 2])
    assert found == (1.0, 1.0)
    assert linear_accuracy(features, [0, 1, 2], features, [0, 1, 2], strengths=[0.1])[1] == 0.1
    with pytest.raises(ValueError, match="no strengths"):
        linear_accuracy(features, [0, 1, 2], features, [0, 1, 2], strengths=[])
