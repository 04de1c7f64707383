"""All evaluations in one call: a table as text, CSV and JSON, and pictures."""

import csv
import io
import json
import math
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from instdisc_core.evaluation import features as of
from instdisc_core.evaluation.clustering import cluster, clustering_scores
from instdisc_core.evaluation.labels import common_labels
from instdisc_core.evaluation.linear import linear_accuracy
from instdisc_core.evaluation.low_shot import fine_tuned_accuracy
from instdisc_core.evaluation.positions import positions_in
from instdisc_core.evaluation.retrieval import retrieve
from instdisc_core.evaluation.tsne import plot_tsne
from instdisc_core.neighbors import DEFAULT_K, knn_accuracy
from instdisc_core.validation import require

MEASURES = ("knn", "linear", "stages", "clustering", "low_shot", "retrieval", "tsne")
PICTURES = {"retrieval", "tsne"}  # the measures that need no labels
PIXEL_BYTES = 2**32  # above which the pixels of the training images are left out
LOW_SHOT = (0.01, 0.02, 0.04, 0.1, 0.2)
COLUMNS = ("measure", "features", "value", "settings")


@dataclass
class Report:
    """What was measured.

    Attributes:
        rows: dicts with ``measure``, ``features`` (what was measured), ``value`` and ``settings``.
        pictures: paths of the pictures and pages that were written.
        about: dict of what was evaluated: numbers of images, fingerprints, how many test images
            are among the training images, seconds.
    """

    rows: list = field(default_factory=list)
    pictures: list = field(default_factory=list)
    about: dict = field(default_factory=dict)

    def add(self, measure, features, value, **settings):
        """Add a row."""
        row = {"measure": measure, "features": features, "value": float(value)}
        self.rows.append({**row, "settings": settings})

    def value(self, measure, features):
        """The value of the row with this measure and these features."""
        found = [r for r in self.rows if (r["measure"], r["features"]) == (measure, features)]
        require(
            len(found) == 1,
            f"measure {measure!r} of {features!r}",
            "one of " + ", ".join(f"{r['measure']!r} of {r['features']!r}" for r in self.rows),
        )
        return found[0]["value"]

    def __str__(self):
        cells = [
            (row["measure"], row["features"], f"{row['value']:.3f}", _settings(row))
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in [COLUMNS, *cells]) for i in range(len(COLUMNS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [COLUMNS, *cells]
        ]
        return "\n".join(lines)

    def to_csv(self):
        """The rows as CSV."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((r["measure"], r["features"], r["value"], _settings(r)) for r in self.rows)
        return text.getvalue()

    def to_json(self):
        """Rows, pictures and what was evaluated, as JSON."""
        pictures = [str(path) for path in self.pictures]
        return json.dumps({"about": self.about, "rows": self.rows, "pictures": pictures}, indent=1)

    def save(self, folder):
        """Write ``report.txt``, ``report.csv`` and ``report.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"txt": f"{self}\n", "csv": self.to_csv(), "json": self.to_json() + "\n"}
        for suffix, text in texts.items():
            (folder / f"report.{suffix}").write_text(text, encoding="utf-8")


def evaluate(
    model,
    train,
    test,
    output=None,
    measures=MEASURES,
    k=None,
    temperature=0.07,
    num_clusters=None,
    low_shot=LOW_SHOT,
    low_shot_epochs=30,
    seed=0,
):
    """Judge a model by its neighbors, by linear classifiers, by clusters, and by eye.

    Labels are used here and never in training. All that is chosen (the strength of a classifier's
    regularizer) is chosen on a part of the training images; the test images are looked at once.

    Evaluating on another data set than the model was trained on is the paper's transfer: give its
    training and test images. Neighbors among the bank's rows are then left out.

    Where test images are also training images, as ``positions_in`` finds them, a warning says so:
    each is then its own nearest neighbor, with its own label.

    Args:
        model: a trained InstanceDiscrimination.
        train, test: ImageSources. Without labels there are pictures only.
        output: folder for the table and the pictures; None draws none.
        measures: some of ``"knn"`` (weighted kNN and 1-NN, also of the pixels of a set that they
            are not too many for), ``"linear"`` (SVM and logistic
            regression on the embedding), ``"stages"`` (logistic regression on ``conv1`` to
            ``conv5``), ``"clustering"`` (k-means), ``"low_shot"`` (fine-tuning with few labels),
            ``"retrieval"`` (neighbors of the best and worst queries) and ``"tsne"`` (t-SNE).
        k: neighbors; None is 200, or all where there are fewer.
        temperature: of the weighted vote; 0.07 on ImageNet, 0.1 on CIFAR-10 in the paper.
        num_clusters: of k-means; None is the number of training classes.
        low_shot: shares of the labels to fine-tune with.
        low_shot_epochs: over the labeled images.
        seed: of splits and starts.

    Returns:
        A Report.

    Raises:
        ValueError: an unknown measure, or labels on one side only.

    Source:
        Wu et al., section 4.

    Example:
    ```python
    report = evaluate(model, ImageFolder("train", 64), ImageFolder("test", 64), "report")
    print(report)
    ```
    """
    unknown = [name for name in measures if name not in MEASURES]
    require(not unknown, f"measures {unknown}", f"some of {', '.join(MEASURES)}")
    labels = common_labels(train, test)
    known = int(np.sum(positions_in(train, test) >= 0))
    if known and labels[0] is not None and not PICTURES.issuperset(measures):
        warnings.warn(
            f"Received: test images of which {known} of {len(test)} are also training images. "
            "Expected others: a training image is its own nearest neighbor, so that the values "
            "are too good. Split one folder, for example with source.subset(...).",
            stacklevel=2,
        )
    start = time.perf_counter()
    report = Report()
    embedded = of.embeddings(model, train), of.embeddings(model, test)
    owns = model.manifest is not None and model.manifest.is_complete
    owns = owns and model.manifest.fingerprint == train.manifest.fingerprint
    if labels[0] is not None:
        if "knn" in measures:
            _measure_knn(report, model, train, test, labels, embedded, owns, k, temperature)
        if "linear" in measures:
            _measure_linear(report, labels, embedded, seed)
        if "stages" in measures:
            _measure_stages(report, model, train, test, labels, seed)
        if "clustering" in measures:
            clusters = cluster(embedded[1], num_clusters or len(np.unique(labels[0])), seed)
            for name, value in clustering_scores(clusters, labels[1]).items():
                report.add(f"clustering {name}", "embedding", value, images="test")
        if "low_shot" in measures:
            for share in low_shot:
                value = fine_tuned_accuracy(model, train, test, share, low_shot_epochs, seed=seed)
                report.add(f"fine-tuned, {share:.0%} of labels", "encoder", value)
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)
        _draw(report, Path(output), train, test, embedded, measures, seed)
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


def _measure_knn(report, model, train, test, labels, embedded, owns, k, temperature):
    """The weighted vote and the nearest neighbor, of bank rows, embeddings, and pixels."""
    encoded = [of.unit(of.encoder_features(model, source)) for source in (train, test)]
    candidates = {"embedding": embedded, "encoder": encoded}
    if 4 * 3 * len(train) * math.prod(train.size) <= PIXEL_BYTES and train.size == test.size:
        rows, mean = of.pixels(train)
        candidates["pixels"] = rows, of.pixels(test, mean)[0]
    if owns:
        candidates = {"bank rows": (model.memory_bank.rows, embedded[1]), **candidates}
    for name, (train_rows, rows) in candidates.items():
        votes = min(int(k or DEFAULT_K), len(train))
        for measure, count in (("kNN", votes), ("1-NN", 1)):
            value = knn_accuracy(
                rows, labels[1], train_rows, labels[0], k=count, temperature=temperature
            )
            report.add(measure, name, value, k=count, temperature=float(temperature))


def _measure_linear(report, labels, embedded, seed):
    for classifier in ("svm", "logistic"):
        value, strength = linear_accuracy(
            embedded[0], labels[0], embedded[1], labels[1], classifier, seed=seed
        )
        report.add(f"linear, {classifier}", "embedding", value, C=strength)


def _measure_stages(report, model, train, test, labels, seed):
    for stage in of.stage_names(model):
        maps = [of.stage_features(model, source, stage) for source in (train, test)]
        value, strength = linear_accuracy(
            maps[0], labels[0], maps[1], labels[1], "logistic", seed=seed
        )
        report.add("linear, logistic", stage, value, C=strength, dimensions=maps[0].shape[1])


def _draw(report, output, train, test, embedded, measures, seed):
    """The pictures."""
    if "retrieval" in measures:
        k = min(10, len(train) - bool(np.any(positions_in(train, test) >= 0)))
        found = retrieve(embedded[1], test, embedded[0], train, k)
        for name, rows in (("best", found.best(8)), ("worst", found.worst(8))):
            rows.plot(output / f"retrieval-{name}.png", f"Queries that fare {name}")
            report.pictures.append(output / f"retrieval-{name}.png")
        some = np.linspace(0, len(test) - 1, min(50, len(test))).astype(int)
        page = retrieve(embedded[1], test, embedded[0], train, k, some)
        page.save_html(output / "neighbors.html")
        report.pictures.append(output / "neighbors.html")
    if "tsne" in measures and len(test) >= 4:
        plot_tsne(embedded[1], test, output / "tsne.png", seed=seed)
        report.pictures.append(output / "tsne.png")


def _settings(row):
    return ", ".join(f"{name}={value}" for name, value in row["settings"].items())
