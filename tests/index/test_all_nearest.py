"""The nearest others of all rows, against all products."""

import keras
import numpy as np
import pytest

from instdisc_core.data import ImageArray
from instdisc_core.index import ImageIndex, all_nearest, embedded_images


def unit_rows(n, dim=24, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype("float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_all_products(rows, k):
    products = rows @ rows.T
    np.fill_diagonal(products, -np.inf)
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(products, order, axis=1), order


@pytest.mark.framework_independent
@pytest.mark.parametrize("k", [1, 5, 69])
@pytest.mark.parametrize("block", [16, 32, 1024])
def test_the_nearest_others_of_each_row(monkeypatch, block, k):
    monkeypatch.setattr(all_nearest, "BLOCK", block)  # 70 rows: four blocks and a part
    rows = unit_rows(70)
    scores, neighbors = all_nearest.all_nearest(rows, k)
    expected, others = by_all_products(rows, k)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_array_equal(neighbors, others)


@pytest.mark.framework_independent
def test_smaller_cosines_are_left_out(monkeypatch):
    monkeypatch.setattr(all_nearest, "BLOCK", 16)
    rows = unit_rows(70)
    expected, others = by_all_products(rows, 9)
    least = float(np.median(expected))
    scores, neighbors = all_nearest.all_nearest(rows, 9, least)
    kept = expected >= least
    assert 0 < kept.mean() < 1
    np.testing.assert_array_equal(scores > -np.inf, kept)
    np.testing.assert_array_equal(neighbors[kept], others[kept])


@pytest.mark.framework_independent
def test_equal_rows_are_no_trouble(monkeypatch):
    monkeypatch.setattr(all_nearest, "BLOCK", 16)
    scores, neighbors = all_nearest.all_nearest(np.repeat(unit_rows(1), 50, axis=0), 4)
    np.testing.assert_allclose(scores, 1, rtol=1e-6)
    assert all(len({i, *found}) == 5 for i, found in enumerate(neighbors.tolist()))


def test_all_images_have_the_neighbors_that_each_has():
    rows = unit_rows(40)
    source = ImageArray(np.zeros((40, 1, 1, 3), "uint8"))
    expected, others = ImageIndex(rows, source).neighbors(3, np.arange(40))
    indices = [ImageIndex(rows, source, backend=b) for b in (None, keras.backend.backend())]
    for index in indices:
        scores, neighbors = index.neighbors(3)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        np.testing.assert_array_equal(neighbors, others)
        with pytest.raises(ValueError, match=r"k=40\. Expected at most 39"):
            index.neighbors(40)


def test_numpy_searches_on_a_processor_and_a_backend_that_is_asked_for_elsewhere(monkeypatch):
    searched, rows = [], unit_rows(60)
    rows[30:34] = rows[:4] + 0.05 * rows[30:34]  # near, and not equal: no products are ties
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    source = ImageArray(np.zeros((60, 1, 1, 3), "uint8"))
    by_numpy = all_nearest.all_nearest
    monkeypatch.setattr(
        embedded_images, "all_nearest", lambda *x: searched.append(x[1]) or by_numpy(*x)
    )
    found = []
    for backend in (keras.backend.backend(), None):
        assert not searched
        index = ImageIndex(rows, source, backend=backend)
        found.append(
            [index.near_duplicates().pairs, index.outliers(5).indices, index.clusters(4).labels]
        )
    for own, of_backend in zip(*reversed(found), strict=True):
        np.testing.assert_array_equal(own, of_backend)
    on_processor = "cpu" in str(getattr(keras.ops.zeros(()), "device", "cpu")).lower()
    assert bool(searched) == on_processor
