"""Clusters of embeddings, and how well they agree with classes."""

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.validation import require, require_count, require_finite


def cluster(
    embeddings: ArrayLike, num_clusters: int, seed: int = 0, restarts: int = 10
) -> np.ndarray:
    """The cluster of each embedding, by k-means: integers ``(n,)`` from 0.

    Args:
        embeddings: unit rows ``(n, embedding_dim)``.
        num_clusters: at least 1, at most ``n``.
        seed: of the random starts.
        restarts: number of random starts; the result with the smallest squared distances is kept.

    Raises:
        ValueError: ``num_clusters`` out of its range, or embeddings that are not finite.

    Example: ``clusters = cluster(model.predict(images), num_clusters=10)``
    """
    from sklearn.cluster import KMeans

    require_count("num_clusters", num_clusters)
    embeddings = np.asarray(ops.convert_to_numpy(embeddings))
    require(
        num_clusters <= len(embeddings),
        f"num_clusters={num_clusters}",
        f"at most the {len(embeddings)} embeddings",
    )
    require_finite("embeddings", embeddings)
    return KMeans(num_clusters, n_init=restarts, random_state=seed).fit_predict(embeddings)


def clustering_scores(clusters: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Agreement of clusters with classes.

    Args:
        clusters, labels: ``(n,)``, integers or strings.

    Returns:
        Dict with ``"accuracy"``, the share of images in the right cluster when clusters are matched
        to classes one to one in the best way; ``"nmi"``, normalized mutual information (arithmetic
        mean); and ``"ari"``, the adjusted Rand index. All are 1 for equal partitions.

    Raises:
        ValueError: clusters and labels of different length.

    Source:
        The three measures that IDFD (Takagi and Nakata) reports.

    Example: ``clustering_scores(cluster(embeddings, 10), labels)["nmi"]``
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    clusters, labels = np.asarray(clusters), np.asarray(labels)
    require(
        clusters.shape == labels.shape and clusters.ndim == 1,
        f"clusters of shape {clusters.shape} and labels of shape {labels.shape}",
        "one cluster and one label for each image",
    )
    counts = contingency_matrix(labels, clusters)
    matched = linear_sum_assignment(counts, maximize=True)
    return {
        "accuracy": float(counts[matched].sum() / len(labels)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
    }
