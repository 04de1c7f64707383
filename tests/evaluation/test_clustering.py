"""Clusters, and their agreement with classes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import blobs
from sklearn.cluster import KMeans

from instdisc_core.evaluation import cluster, clustering_scores

pytestmark = pytest.mark.framework_independent


def test_blobs_are_found():
    features, labels = blobs()
    scores = clustering_scores(cluster(features, 3), labels)
    assert scores == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})


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
