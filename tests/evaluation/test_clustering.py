"""Clusters, and their agreement with classes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import blobs
from scipy.sparse import linalg as sparse_linalg
from sklearn.cluster import KMeans

from instdisc_core.evaluation import cluster, cluster_neighbors, clustering, clustering_scores

pytestmark = pytest.mark.framework_independent


def test_blobs_are_found():
    features, labels = blobs()
    scores = clustering_scores(cluster(features, 3), labels)
    assert scores == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})


def on_circles(radii=(1, 2), points=60):
    """Points of rings around one center, whose means are the same, and the ring of each."""
    angles = 2 * np.pi * np.arange(points) / points
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([r * ring for r in radii]), np.repeat(np.arange(len(radii)), points)


def nearest(points, m):
    distances = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    return np.argsort(distances, axis=1, kind="stable")[:, :m]


def test_neighbors_find_what_means_cannot():
    points, labels = on_circles()
    assert clustering_scores(cluster(points, 2), labels)["nmi"] < 0.5
    found = cluster_neighbors(nearest(points, 4), 2)
    assert clustering_scores(found, labels)["accuracy"] == 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_every_number_of_clusters_of_few_images(n):
    neighbors = (np.arange(n)[:, None] + np.arange(1, min(n, 3))) % n
    for k in range(1, n + 1):
        found = cluster_neighbors(neighbors, k)
        assert found.shape == (n,)
        assert set(found.tolist()) <= set(range(k))


def test_the_clustered_rows_are_the_eigenvectors_of_the_formula(monkeypatch):
    """Uneven degrees, neighbors on one side only, and weak ties: each part of it matters."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 4))
    points = centers[np.repeat(np.arange(3), (10, 15, 20))] + rng.normal(size=(45, 4)) / 2
    neighbors, seen = nearest(points, 4), []
    monkeypatch.setattr(clustering, "cluster", lambda rows, *_: seen.append(rows))
    for _ in range(2):
        cluster_neighbors(neighbors, 3, seed=2)
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)  # they start alike

    n, directed = len(points), np.zeros((45, 45))
    np.put_along_axis(directed, neighbors, 0.5, axis=1)
    adjacency = directed + directed.T
    degrees = adjacency.sum(axis=1)
    t = degrees.mean()
    matrix = (adjacency + t / n) / np.sqrt(np.outer(degrees + t, degrees + t))
    vectors = np.linalg.eigh(matrix)[1][:, -3:]
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # Up to a rotation, which keeps the products of rows.
    np.testing.assert_allclose(seen[0] @ seen[0].T, expected @ expected.T, atol=0.01)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("found", [0, 1, 2])
def test_eigenvectors_that_are_not_found_are_done_without(monkeypatch, found):
    points, labels = on_circles((1, 2, 3))
    right = sparse_linalg.eigsh

    def some(*args, **kwargs):
        values, vectors = right(*args, **kwargs)
        last = slice(len(values) - found, None)
        raise sparse_linalg.ArpackNoConvergence("too often", values[last], vectors[:, last])

    monkeypatch.setattr(sparse_linalg, "eigsh", some)
    assert cluster_neighbors(nearest(points, 4), 3).shape == labels.shape


def test_neighbors_that_are_no_images_are_rejected():
    with pytest.raises(ValueError, match=r"neighbors of shape \(3,\). Expected \(images, "):
        cluster_neighbors([1, 2, 0], 2)
    with pytest.raises(ValueError, match="3"):
        cluster_neighbors([[1], [3], [0]], 2)
    with pytest.raises(ValueError, match=r"num_clusters=4. Expected at most the 3 images"):
        cluster_neighbors([[1], [2], [0]], 4)


def test_number_seed_and_restarts_reach_k_means(monkeypatch):
    made = []

    def fit_predict(self, rows):
        made.append((self.n_clusters, self.n_init, self.random_state))

    monkeypatch.setattr(KMeans, "fit_predict", fit_predict)
    features, _ = blobs()
    cluster(features, 3)
    cluster(features, 2, seed=5, restarts=4)
    assert made == [(3, 10, 0), (2, 4, 5)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_accuracy_is_that_of_the_best_matching(pairs):
    clusters, labels = map(np.array, zip(*pairs, strict=True))
    best = max(
        np.mean(np.array(naming)[clusters] == labels) for naming in itertools.permutations(range(4))
    )
    assert clustering_scores(clusters, labels)["accuracy"] == pytest.approx(best)
    renamed = clustering_scores(3 - clusters, labels)
    assert renamed == pytest.approx(clustering_scores(clusters, labels), abs=1e-9)


def test_too_many_clusters_unequal_lengths_and_nan_are_rejected():
    with pytest.raises(ValueError, match=r"num_clusters=5. Expected at most the 3"):
        cluster(np.eye(3), 5)
    with pytest.raises(ValueError, match="one cluster and one label for each image"):
        clustering_scores([0, 1], [0])
    wrong = np.eye(9)
    wrong[[2, 4], 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"embeddings in which 2 of 9 rows .* finite: 2, 4\."):
        cluster(wrong, 2)
