"""One labeled image per class."""

import numpy as np
import pytest
from problems import blobs

from instdisc_core.evaluation import one_label_accuracies, unit


def test_one_image_per_class_is_enough_for_separate_classes():
    features, labels = blobs()
    rows = unit(features)
    names = np.array(["a", "b", "c"])[labels]
    found = one_label_accuracies(rows, names, rows, names, draws=7)
    np.testing.assert_array_equal(found, np.ones(7))


def test_the_nearest_labeled_image_decides():
    """Two classes on a line: a test row goes to the side of the image that was drawn."""
    train, test = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = one_label_accuracies(train, [0, 1], test, [0, 1, 1], draws=2)
    assert found == pytest.approx([2 / 3, 2 / 3])


def test_draws_differ_and_can_be_repeated():
    rng = np.random.default_rng(0)
    rows, labels = unit(rng.normal(size=(60, 4))), np.arange(60) % 3
    first = one_label_accuracies(rows, labels, rows, labels, seed=1)
    assert len(np.unique(first)) > 5
    np.testing.assert_array_equal(first, one_label_accuracies(rows, labels, rows, labels, seed=1))
    assert not np.array_equal(first, one_label_accuracies(rows, labels, rows, labels, seed=2))


def test_what_does_not_fit_is_an_error():
    rows = np.ones((4, 2))
    with pytest.raises(ValueError, match="labels of shape"):
        one_label_accuracies(rows, [0, 1, 2], rows, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="finite"):
        one_label_accuracies(rows * np.nan, [0, 1, 0, 1], rows, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="draws"):
        one_label_accuracies(rows, [0, 1, 0, 1], rows, [0, 1, 0, 1], draws=0)
