"""What an embedding is worth: by its neighbors, by linear classifiers, by clusters, by eye."""

from instdisc_core.evaluation.clustering import cluster, clustering_scores
from instdisc_core.evaluation.linear import linear_accuracy
from instdisc_core.evaluation.low_shot import fine_tuned_accuracy
from instdisc_core.evaluation.report import MEASURES, Report, evaluate
from instdisc_core.evaluation.retrieval import Retrieval, retrieve
from instdisc_core.evaluation.tsne import plot_tsne
from instdisc_core.neighbors import knn_accuracy, weighted_knn

__all__ = [
    "MEASURES",
    "Report",
    "Retrieval",
    "cluster",
    "clustering_scores",
    "evaluate",
    "fine_tuned_accuracy",
    "knn_accuracy",
    "linear_accuracy",
    "plot_tsne",
    "retrieve",
    "weighted_knn",
]
