"""What an embedding is worth: evaluations that look at it through its neighbours."""

from instdisc_core.evaluation.neighbours import knn_accuracy, weighted_knn

__all__ = ["knn_accuracy", "weighted_knn"]
