"""Outliers, clusters, and a few images that stand for all."""

import numpy as np
import pytest
from photo_sets import named, pixels

from instdisc_core.index import ImageIndex

pytestmark = pytest.mark.on_one_backend


def on_circle(angles):
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return ImageIndex(rows, named(pixels(len(rows))))


def test_the_image_far_from_all_is_the_oddest():
    index = on_circle([0, 0.1, 0.2, 2.0, 0.15, 0.6])
    odd = index.outliers(2, k=2)
    assert odd.indices.tolist() == [3, 5]
    expected = [(np.cos(1.4) + np.cos(1.8)) / 2, (np.cos(0.4) + np.cos(0.45)) / 2]
    np.testing.assert_allclose(odd.similarities, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"n=7\. Expected at most the 6 images"):
        index.outliers(7)
    with pytest.raises(ValueError, match=r"k=6\. Expected at most 5"):
        index.outliers(1, k=6)


def test_clusters_are_numbered_by_their_size_and_have_a_typical_image():
    found = on_circle([0, 0.1, 0.02, 1.5, 3, 3.1]).clusters(3)
    assert found.labels.tolist() == [0, 0, 0, 2, 1, 1]
    assert found.centers[0] == 2
    assert found.centers[2] == 3


def test_a_diverse_subset_takes_the_farthest_each_time():
    index = on_circle([0.2, 0, 0.4, 1.5, 1.4])
    assert index.diverse_subset(1).tolist() == [2], "the one nearest to the mean"
    assert index.diverse_subset(3).tolist() == [2, 3, 1]
    assert sorted(index.diverse_subset(5).tolist()) == list(range(5))
    with pytest.raises(ValueError, match=r"n=6\. Expected at most the 5 images"):
        index.diverse_subset(6)


def test_equal_images_are_not_chosen_twice():
    index = on_circle([0, 0, 1, 1])
    assert sorted(index.diverse_subset(4).tolist()) == list(range(4))
