"""Clusters of embeddings, and how well they agree with classes."""

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.evaluation.features import unit
from instdisc_core.validation import check_indices, require, require_count, require_finite

RESTARTS = 1000  # of the search for eigenvectors, at most


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


def cluster_neighbors(
    neighbors: ArrayLike, num_clusters: int, seed: int = 0, restarts: int = 10
) -> np.ndarray:
    """The cluster of each image, by who its neighbors are: integers ``(n,)`` from 0.

    An embedding that tells all images apart is nearly uniform, so that the means of k-means say
    little; what is near means more. With ``A_ij`` 1, 1/2 or 0 if both, one or none of two images
    have the other among their neighbors, degrees ``d = A 1`` and their mean ``t``, k-means runs on
    the unit rows of the first eigenvectors of

        (d + t)^(-1/2) (A + t / n) (d + t)^(-1/2)

    Without ``t``, which joins all images weakly, a few copies of one image would be a cluster.

    Args:
        neighbors: integers ``(n, m)``, the ``m`` images most like each image, without itself. About
            15 are enough; among few images take fewer, such as the root of ``n``.
        num_clusters, seed, restarts: as in ``cluster``.

    Raises:
        ValueError: ``num_clusters`` out of its range, or neighbors that are not images.

    Source:
        Ng, Jordan and Weiss, NIPS 2001; Qin and Rohe, NIPS 2013, for ``t``.

    Example:
    ```python
    neighbors = ImageIndex(embeddings, photos).neighbors(k=6).indices
    clusters = evaluation.cluster_neighbors(neighbors, num_clusters=4)
    ```
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    neighbors = np.asarray(ops.convert_to_numpy(neighbors))
    require(
        neighbors.ndim == 2 and (neighbors.shape[1] > 0 or len(neighbors) == 1),
        f"neighbors of shape {neighbors.shape}",
        "(images, neighbors of each)",
    )
    n, m = neighbors.shape
    check_indices(neighbors.ravel(), n, name="neighbors", of="images")
    require_count("num_clusters", num_clusters)
    require(num_clusters <= n, f"num_clusters={num_clusters}", f"at most the {n} images")
    if num_clusters == n:
        return np.arange(n)
    halves = np.full(n * m, 0.5), neighbors.ravel(), np.arange(0, n * m + 1, m)
    directed = csr_array(halves, shape=(n, n))
    adjacency = directed + directed.T
    degrees = adjacency.sum(axis=1)
    t = degrees.mean()
    root = 1 / np.sqrt(degrees + t)

    def product(x: np.ndarray) -> np.ndarray:
        x = root * x.ravel()
        return root * (adjacency @ x + t * x.mean())

    matrix = LinearOperator((n, n), matvec=product, dtype="float64")
    start = np.random.default_rng(seed).normal(size=n)
    try:
        _, vectors = eigsh(matrix, num_clusters, which="LA", v0=start, maxiter=RESTARTS, tol=1e-4)
    except ArpackNoConvergence as error:  # there are hardly any clusters
        vectors = np.column_stack([1 / root, error.eigenvectors])
    return cluster(unit(vectors), num_clusters, seed, restarts)


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
