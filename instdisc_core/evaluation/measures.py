"""The measures of a report: each function adds the rows of one measure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from keras import ops

from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.clustering import cluster, clustering_scores
from instdisc_core.evaluation.features import (
    encoder_features,
    pixels,
    stage_features,
    stage_names,
    unit,
)
from instdisc_core.evaluation.labels import CommonLabels
from instdisc_core.evaluation.linear import Classifier, linear_accuracy
from instdisc_core.evaluation.low_shot import fine_tuned_accuracy
from instdisc_core.evaluation.neighbors import DEFAULT_K, knn_accuracy
from instdisc_core.evaluation.report import Report
from instdisc_core.evaluation.whitening import whitening
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.types import Tensor
from instdisc_core.validation import require_count

Measure: TypeAlias = Literal[
    "verdict", "knn", "linear", "stages", "clustering", "low_shot", "retrieval", "tsne"
]
MEASURES: tuple[Measure, ...] = get_args(Measure)
PIXEL_BYTES = 2**32  # above which the pixels of the training images are not measured
CLUSTERED_ROWS = 100_000  # above which k-means of the bank's rows takes too long
CLASSIFIERS: tuple[Classifier, ...] = ("svm", "logistic")


@dataclass(frozen=True)
class Evaluated:
    """What is measured: a model on training and test images with labels.

    Attributes:
        model: an EmbeddingModel, such as InstanceDiscrimination or NNCLR.
        train, test: ImageSources.
        labels: of both.
        train_rows, test_rows: unit embeddings of both.
        bank: the model's MemoryBank, if it has one whose rows are those of the training images.
    """

    model: EmbeddingModel
    train: ImageSource
    test: ImageSource
    labels: CommonLabels
    train_rows: np.ndarray
    test_rows: np.ndarray
    bank: MemoryBank | None


def measure_knn(report: Report, it: Evaluated, k: int | None, temperature: float) -> None:
    """Add weighted kNN and 1-NN accuracies of bank rows, embeddings, encoder features, pixels.

    The encoder's features are taken as they are, and whitened unless they are all the same.
    """
    encoded, queries = (encoder_features(it.model, source) for source in (it.train, it.test))
    candidates: dict[str, tuple[Tensor, np.ndarray]] = {
        "embedding": (it.train_rows, it.test_rows),
        "encoder": (unit(encoded), unit(queries)),
    }
    if np.ptp(encoded, axis=0).any():
        white = whitening(encoded)
        candidates["encoder, whitened"] = white(encoded), white(queries)
    fits = 4 * 3 * len(it.train) * math.prod(it.train.size) <= PIXEL_BYTES
    if fits and it.train.size == it.test.size:
        rows, mean = pixels(it.train)
        queries = pixels(it.test, mean).rows
        if rows.any(axis=1).all() and queries.any(axis=1).all():  # else some have no direction
            candidates["pixels"] = rows, queries
    if it.bank is not None:
        candidates = {"bank rows": (it.bank.rows, it.test_rows), **candidates}
    k = DEFAULT_K if k is None else k
    require_count("k", k)
    votes = min(int(k), len(it.train))
    for name, (train_rows, rows) in candidates.items():
        backend = it.bank.bank_ops if it.bank is not None and name == "bank rows" else None
        for measure, count in (("kNN", votes), ("1-NN", 1)):
            value = knn_accuracy(
                rows,
                it.labels.test,
                train_rows,
                it.labels.train,
                k=count,
                temperature=temperature,
                backend=backend,
            )
            report.add(measure, name, value, k=count, temperature=float(temperature))


def measure_linear(report: Report, it: Evaluated, seed: int) -> None:
    """Add the accuracies of an SVM and of logistic regression on the embedding."""
    for classifier in CLASSIFIERS:
        accuracy, strength = linear_accuracy(
            it.train_rows, it.labels.train, it.test_rows, it.labels.test, classifier, seed=seed
        )
        report.add(f"linear, {classifier}", "embedding", accuracy, C=strength)


def measure_stages(report: Report, it: Evaluated, seed: int) -> None:
    """Add the accuracy of logistic regression on the feature map of each stage of the encoder."""
    for stage in stage_names(it.model):
        train, test = (stage_features(it.model, s, stage) for s in (it.train, it.test))
        accuracy, strength = linear_accuracy(
            train, it.labels.train, test, it.labels.test, "logistic", seed=seed
        )
        report.add("linear, logistic", stage, accuracy, C=strength, dimensions=train.shape[1])


def measure_clustering(report: Report, it: Evaluated, num_clusters: int | None, seed: int) -> None:
    """Add the agreement of k-means clusters with classes: of test embeddings, and of bank rows."""
    candidates = {"embedding": ("test", it.test_rows, it.labels.test)}
    if it.bank is not None and it.bank.num_rows <= CLUSTERED_ROWS:
        rows = ops.convert_to_numpy(it.bank.lookup(np.arange(it.bank.num_rows)))
        candidates["bank rows"] = "train", rows, it.labels.train
    for features, (images, rows, labels) in candidates.items():
        classes = min(len(np.unique(it.labels.train)), len(rows))
        clusters = cluster(rows, num_clusters or classes, seed)
        for name, value in clustering_scores(clusters, labels).items():
            report.add(f"clustering {name}", features, value, images=images)


def measure_low_shot(
    report: Report, it: Evaluated, shares: Sequence[float], epochs: int, seed: int
) -> None:
    """Add the accuracy after fine-tuning with each share of the training labels."""
    for share in shares:
        value = fine_tuned_accuracy(it.model, it.train, it.test, share, epochs, seed=seed)
        report.add(f"fine-tuned, {100 * share:.3g}% of labels", "encoder", value)
