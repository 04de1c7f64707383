"""Pairs that are near for where they are, against all products."""

import numpy as np
import pytest

from instdisc_core.data import ImageArray
from instdisc_core.index import ImageIndex, near_duplicates

pytestmark = pytest.mark.on_one_backend


def indexed(rows):
    return ImageIndex(rows, ImageArray(np.zeros((len(rows), 1, 1, 3), "uint8")))


def clumps(sizes, spread=0.02, seed=0, dim=48):
    """Unit rows in clumps of these sizes around random directions, in random order."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.standard_normal((len(sizes), dim)), sizes, axis=0)
    rows = rows + spread * rng.standard_normal(rows.shape)
    rows = rows[rng.permutation(len(rows))].astype("float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def relative_distances(rows):
    """Of all pairs, as the docstring defines them; above the diagonal."""
    distances = np.maximum(1 - np.float64(rows) @ np.float64(rows).T, 0)
    np.fill_diagonal(distances, np.inf)
    fifth = np.sort(distances, axis=1)[:, min(5, len(rows) - 1) - 1]
    fifth = np.maximum(fifth, np.median(fifth) / 4)
    return np.triu(distances / ((fifth[:, None] + fifth) / 2), 1) + np.tril(
        np.full_like(distances, 9)
    )


def connected(pairs):
    groups = []
    for pair in map(set, pairs.tolist()):
        joined = [group for group in groups if group & pair]
        groups = [group for group in groups if not group & pair] + [pair.union(*joined)]
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize("threshold", [0.2, 0.9])
@pytest.mark.parametrize("block", [4096, 7])
def test_every_near_pair_is_found_once(monkeypatch, block, threshold):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    rows = clumps([2, 3, 20, 5] + [1] * 60)  # in one clump more than 16 others are near
    all_distances = relative_distances(rows)
    found = indexed(rows).near_duplicates(threshold)
    expected = np.argwhere(all_distances <= threshold)
    assert sorted(map(tuple, found.pairs.tolist())) == list(map(tuple, expected.tolist()))
    assert len(expected) >= 190 + 10 + 3 + 1
    where = tuple(found.pairs.T)
    np.testing.assert_allclose(found.distances, all_distances[where], rtol=1e-3)
    np.testing.assert_allclose(found.similarities, (rows @ rows.T)[where], rtol=1e-5)
    assert np.all(np.diff(found.distances) >= 0)
    assert [group.tolist() for group in found.groups] == connected(expected)


def test_the_default_finds_the_clumps_at_any_scale():
    """Embeddings that are all alike have smaller distances, and the same near-duplicates."""
    rows = clumps([2, 3, 5] + [1] * 60)
    together = rows / 4 + np.eye(48, dtype="float32")[0]
    together /= np.linalg.norm(together, axis=1, keepdims=True)
    assert (together @ together.T).min() > 0.8
    groups = [[g.tolist() for g in indexed(x).near_duplicates().groups] for x in (rows, together)]
    assert [len(group) for group in groups[0]] == [5, 3, 2]
    assert groups[0] == groups[1]


def test_a_group_of_more_than_129_is_one_group():
    rows = clumps([150, 2] + [1] * 200, spread=0)
    found = indexed(rows).near_duplicates()
    assert [len(group) for group in found.groups] == [150, 2]
    assert found.distances.max() < 1e-3
    assert len(found.pairs) < 150 * 149 / 2


@pytest.mark.parametrize("dim", [64, 512])
def test_copies_are_found_where_most_images_have_some(dim):
    """The usual distance is then 0 but for rounding."""
    for seed in range(3):
        rows = np.repeat(clumps([1] * 10, seed=seed, dim=dim), 7, axis=0)
        assert [len(group) for group in indexed(rows).near_duplicates().groups] == [7] * 10
    assert len(indexed(np.repeat(rows[:1], 2, axis=0)).near_duplicates().groups) == 1


def test_few_images():
    assert indexed(np.eye(1)).near_duplicates().groups == []
    assert indexed(np.eye(2)).near_duplicates().groups == []
    same = indexed([[1, 0], [1, 0]]).near_duplicates()
    assert (same.pairs.tolist(), same.distances.tolist()) == ([[0, 1]], [0])
    none = indexed(np.eye(20)).near_duplicates()
    assert none.pairs.shape == (0, 2)
    assert none.distances.shape == none.similarities.shape == (0,)


def test_so_many_pairs_that_memory_would_not_do_are_an_error(monkeypatch):
    monkeypatch.setattr(near_duplicates, "MOST", 30)
    monkeypatch.setattr(near_duplicates, "BLOCK", 2)  # most pairs are of two blocks
    assert len(indexed(clumps([7] + [1] * 60)).near_duplicates().pairs) == 21
    with pytest.raises(ValueError, match=r"more than 30 pairs.*Leave out equal images"):
        indexed(clumps([20] + [1] * 60)).near_duplicates()


@pytest.mark.parametrize("threshold", [1.5, 0, np.nan, "high"])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ValueError, match=r"threshold=.* Expected a number in \(0, 1\]"):
        indexed(np.eye(3)).near_duplicates(threshold)
