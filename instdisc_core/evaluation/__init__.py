"""What an embedding is worth: by its neighbours, by linear classifiers, by clusters, by eye."""

from instdisc_core.evaluation.clustering import cluster, clustering_scores
from instdisc_core.evaluation.linear import linear_accuracy
from instdisc_core.evaluation.low_shot import fine_tuned_accuracy
from instdisc_core.evaluation.neighbours import knn_accuracy, weighted_knn

__all__ = [
    "cluster",
    "clustering_scores",
    "fine_tuned_accuracy",
    "knn_accuracy",
    "linear_accuracy",
    "weighted_knn",
]
