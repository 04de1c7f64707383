"""All measures in one call."""

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.features import embeddings
from instdisc_core.evaluation.judging import verdict
from instdisc_core.evaluation.labels import common_labels
from instdisc_core.evaluation.measures import (
    MEASURES,
    Evaluated,
    Measure,
    measure_clustering,
    measure_knn,
    measure_linear,
    measure_low_shot,
    measure_stages,
)
from instdisc_core.evaluation.positions import positions_in
from instdisc_core.evaluation.report import Report
from instdisc_core.evaluation.report_pictures import draw_pictures
from instdisc_core.validation import require

UNLABELED = {"verdict", "retrieval", "tsne"}  # the measures that need no labels
LOW_SHOT = (0.01, 0.02, 0.04, 0.1, 0.2)


def evaluate(
    model: EmbeddingModel,
    train: ImageSource,
    test: ImageSource,
    output: str | os.PathLike | None = None,
    measures: Sequence[Measure] = MEASURES,
    k: int | None = None,
    temperature: float = 0.07,
    num_clusters: int | None = None,
    low_shot: Sequence[float] = LOW_SHOT,
    low_shot_epochs: int = 30,
    seed: int = 0,
) -> Report:
    """Evaluate a model by its neighbors, by linear classifiers, by clusters, and by pictures.

    Labels are used here and never in training. What has to be chosen (the strength of a
    classifier's regularizer) is chosen on a part of the training images; the test images are used
    once.

    Evaluating on another data set than the model was trained on is the paper's transfer: give its
    training and test images. Neighbors among the bank's rows are then left out.

    Where test images are also training images, as ``positions_in`` finds them, a warning says so:
    each is then its own nearest neighbor, with its own label.

    Args:
        model: a trained InstanceDiscrimination or NNCLR.
        train, test: ImageSources. Without labels there are only the verdict and pictures.
        output: folder for the table and the pictures; None writes no files.
        measures: some of ``"verdict"`` (see ``verdict``), ``"knn"`` (weighted kNN and 1-NN; also
            of the encoder's features, as they are and whitened, and of the pixels, where those of
            the training images take at most 4 GiB), ``"linear"`` (SVM and logistic regression on
            the embedding), ``"stages"`` (logistic regression on ``conv1`` to ``conv5``),
            ``"clustering"`` (k-means on the test embeddings, and on up to 100,000 rows of the
            bank), ``"low_shot"`` (fine-tuning with few labels), ``"retrieval"`` (neighbors of the
            best and worst queries) and ``"tsne"`` (t-SNE).
        k: number of neighbors; None is 200, or all where there are fewer.
        temperature: of the weighted vote; 0.07 on ImageNet, 0.1 on CIFAR-10 in the paper.
        num_clusters: of k-means; None is the number of training classes.
        low_shot: shares of the labels to fine-tune with.
        low_shot_epochs: over the labeled images.
        seed: of splits, random starts and t-SNE.

    Returns:
        A Report.

    Raises:
        ValueError: an unknown measure, labels on one side only, or embeddings that are not finite.

    Source:
        Wu et al., section 4.

    Example:
    ```python
    report = evaluate(model, train, test, "report", measures=["knn", "clustering"])
    print(report)
    ```
    """
    unknown = [name for name in measures if name not in MEASURES]
    require(not unknown, f"measures {unknown}", f"some of {', '.join(MEASURES)}")
    labels = common_labels(train, test)
    known = int(np.sum(positions_in(train, test) >= 0))
    if known and labels is not None and not UNLABELED.issuperset(measures):
        warnings.warn(
            f"Received: test images of which {known} of {len(test)} are also training images. "
            "Expected others: a training image is its own nearest neighbor, so the values are too "
            "high. Split one folder, for example with source.subset(...).",
            stacklevel=2,
        )
    start = time.perf_counter()
    judged = verdict(model, train, seed=seed) if "verdict" in measures else None
    report = Report() if judged is None else judged.report()
    train_rows, test_rows = embeddings(model, train), embeddings(model, test)
    own = model.manifest
    owns = own is not None and own.is_complete and own.fingerprint == train.manifest.fingerprint
    if labels is not None:
        bank = model.memory_bank if owns else None
        it = Evaluated(model, train, test, labels, train_rows, test_rows, bank)
        if "knn" in measures:
            measure_knn(report, it, k, temperature)
        if "linear" in measures:
            measure_linear(report, it, seed)
        if "stages" in measures:
            measure_stages(report, it, seed)
        if "clustering" in measures:
            measure_clustering(report, it, num_clusters, seed)
        if "low_shot" in measures:
            measure_low_shot(report, it, low_shot, low_shot_epochs, seed)
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        report.pictures = draw_pictures(folder, train, test, train_rows, test_rows, measures, seed)
        if judged is not None:
            report.pictures.append(folder / "verdict.png")
            judged.plot(report.pictures[-1])
    report.about = {
        "train": {"images": len(train), "fingerprint": train.manifest.fingerprint},
        "test": {"images": len(test), "fingerprint": test.manifest.fingerprint},
        "test_images_in_train": known,
        "trained_on_train": owns,
        "seconds": time.perf_counter() - start,
    }
    if output is not None:
        report.save(output)
    return report
