"""Pairs above a threshold, against all products."""

import numpy as np
import pytest

from instdisc_core.data import ImageArray
from instdisc_core.index import ImageIndex, near_duplicates


def indexed(rows):
    images = np.zeros((len(rows), 1, 1, 3), "uint8")
    return ImageIndex(rows, ImageArray(images))


def clumps(sizes, seed=0, spread=0.05, dim=16):
    """Unit rows in clumps of these sizes around random directions, in random order."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(rng.standard_normal((len(sizes), dim)), sizes, axis=0)
    rows = centers + spread * rng.standard_normal(centers.shape)
    rows = rows[rng.permutation(len(rows))].astype("float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def connected(pairs):
    groups = []
    for pair in map(set, pairs.tolist()):
        joined = [group for group in groups if group & pair]
        groups = [group for group in groups if not group & pair] + [pair.union(*joined)]
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize("block", [4096, 7])
def test_every_pair_above_the_threshold_is_found_once(monkeypatch, block):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    rows = clumps([1, 2, 3, 20, 1, 5])  # more than 16 others are near in the clump of 20
    products = np.triu(rows.astype("float64") @ rows.T.astype("float64"), 1)
    found = indexed(rows).near_duplicates(0.9)
    expected = np.argwhere(products >= 0.9)
    assert sorted(map(tuple, found.pairs.tolist())) == list(map(tuple, expected.tolist()))
    assert len(expected) > 190
    cosines = products[tuple(found.pairs.T)]
    np.testing.assert_allclose(found.similarities, cosines, rtol=1e-6)
    assert np.all(np.diff(found.similarities) <= 0)
    assert [group.tolist() for group in found.groups] == connected(expected)


def test_a_group_of_more_than_129_is_one_group():
    rows = clumps([150, 2], spread=0)
    found = indexed(rows).near_duplicates(0.99)
    assert [len(group) for group in found.groups] == [150, 2]
    assert len(found.pairs) < 150 * 149 / 2


def test_nothing_is_near_itself_alone():
    for rows in (np.eye(3), np.eye(1), np.eye(20)):
        found = indexed(rows).near_duplicates(0.5)
        assert found.pairs.shape == (0, 2)
        assert found.similarities.shape == (0,)
        assert found.groups == []


@pytest.mark.parametrize("threshold", [1.5, -2, np.nan, "high"])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(ValueError, match=r"threshold=.* Expected a number in \[-1, 1\]"):
        indexed(np.eye(3)).near_duplicates(threshold)
