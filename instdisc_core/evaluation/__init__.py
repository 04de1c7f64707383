"""How good an embedding is, by neighbors, classifiers, clusters and pictures, or without labels."""

from instdisc_core.evaluation.clustering import cluster, cluster_neighbors, clustering_scores
from instdisc_core.evaluation.evaluate_model import evaluate
from instdisc_core.evaluation.features import unit
from instdisc_core.evaluation.judging import PRETRAINED, UNTRAINED, Verdict, judged, verdict
from instdisc_core.evaluation.layout import layout
from instdisc_core.evaluation.linear import LinearAccuracy, linear_accuracy
from instdisc_core.evaluation.low_shot import fine_tuned_accuracy, labeled_subset
from instdisc_core.evaluation.matching import Matching
from instdisc_core.evaluation.measures import MEASURES
from instdisc_core.evaluation.neighbors import knn_accuracy, weighted_knn
from instdisc_core.evaluation.one_label import one_label_accuracies
from instdisc_core.evaluation.pictures import COLORS, draw_neighbors
from instdisc_core.evaluation.positions import positions_in
from instdisc_core.evaluation.report import Report, text_table
from instdisc_core.evaluation.retrieval import Retrieval, retrieve
from instdisc_core.evaluation.tsne import TSNEPositions, draw_tsne, plot_tsne, tsne
from instdisc_core.evaluation.whitening import Whitening, whitened, whitening

__all__ = [
    "COLORS",
    "MEASURES",
    "PRETRAINED",
    "UNTRAINED",
    "LinearAccuracy",
    "Matching",
    "Report",
    "Retrieval",
    "TSNEPositions",
    "Verdict",
    "Whitening",
    "cluster",
    "cluster_neighbors",
    "clustering_scores",
    "draw_neighbors",
    "draw_tsne",
    "evaluate",
    "fine_tuned_accuracy",
    "judged",
    "knn_accuracy",
    "labeled_subset",
    "layout",
    "linear_accuracy",
    "one_label_accuracies",
    "plot_tsne",
    "positions_in",
    "retrieve",
    "text_table",
    "tsne",
    "unit",
    "verdict",
    "weighted_knn",
    "whitened",
    "whitening",
]
