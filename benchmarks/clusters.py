"""Clusters by means and by neighbors, of images that were not trained on.

    KERAS_BACKEND=torch python -m benchmarks.clusters --sets sets/signs sets/trash \
        --trained runs/signs runs/trash

A set is a folder as in `benchmarks.folders`, with the same images held out, which are divided into
as many clusters as there are classes. The folders of the trainings, on the other images, are in the
same order, each with its `recipe.json` and `model.keras`.
"""

import time
from pathlib import Path

import keras
import numpy as np

from benchmarks import harness
from benchmarks.folders import learned_rows, parts, read
from instdisc_core import recipes
from instdisc_core.data import ImageArray
from instdisc_core.evaluation import cluster, clustering_scores
from instdisc_core.index import ImageIndex


def by_means(rows, k):
    """Clusters by k-means."""
    return cluster(rows, k)


def by_neighbors(rows, k):
    """Clusters as an index has them."""
    pictures = np.zeros((len(rows), 1, 1, 3), "uint8")
    return ImageIndex(rows, ImageArray(pictures)).clusters(k).labels


WAYS = {"means": by_means, "neighbors": by_neighbors}


def measured(folder, trained, work):
    """Agreement of each way's clusters with the classes, and its seconds, for each kind of rows."""
    recipe = recipes.for_images(folder, output=trained, verbose=False)
    train, test = read(parts(folder, work), recipe.image_size)
    model = keras.saving.load_model(trained / "model.keras")
    found = {}
    for kind, (_, rows) in learned_rows(model, (train, test)).items():
        found[kind] = {}
        for name, way in WAYS.items():
            start = time.process_time()
            labels = way(rows, len(test.class_names))
            seconds = time.process_time() - start
            scores = clustering_scores(labels, test.labels)
            found[kind][name] = {**scores, "processor_seconds": seconds}
    return {
        "images": len(test),
        "classes": len(test.class_names),
        "fingerprint": test.manifest.fingerprint,
        "epochs": recipe.epochs,
        "scores": found,
    }


def main():
    """Measure all sets, print the table and store the result."""
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--sets", nargs="+", type=Path, required=True, help="folders")
    add("--trained", nargs="+", type=Path, required=True, help="the training of each set")
    add("--work", type=Path, default="build/runs", help="where the splits of the sets are kept")
    args = parser.parse_args()

    sets = {
        folder.name: measured(folder, trained, args.work)
        for folder, trained in zip(args.sets, args.trained, strict=True)
    }
    rows = [
        (name, kind, way, *(f"{scores[key]:.3f}" for key in ("accuracy", "nmi", "ari")))
        for name, result in sets.items()
        for kind, ways in result["scores"].items()
        for way, scores in ways.items()
    ]
    harness.table(("set", "features", "by", "accuracy", "NMI", "ARI"), rows)
    harness.write("clusters", {"sets": sets})


if __name__ == "__main__":
    main()
