"""Learn handwritten digits without labels, and show what was learned.

    python examples/demo.py
    KERAS_BACKEND=torch python examples/demo.py --seed 1 --output elsewhere

Trains on scikit-learn's digits, about a minute on two cores; nothing is downloaded. Labels are used
to judge the embedding, never to train it or to choose an epoch. Prints a table, and writes
`digits.png` and `results.json`.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # before anything imports Keras

import argparse
import importlib
import json
import math
import textwrap
import time
from pathlib import Path

import common
import keras
import matplotlib
import numpy as np
import scipy
import sklearn
from tqdm import tqdm

import instdisc_core
from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.callbacks import KNNEvaluation
from instdisc_core.data import ImageArray
from instdisc_core.evaluation import (
    COLORS,
    cluster,
    clustering_scores,
    draw_neighbors,
    draw_tsne,
    knn_accuracy,
    one_label_accuracies,
    retrieve,
    unit,
)

matplotlib.use("Agg")  # draws without a display
from matplotlib import pyplot as plt

TEMPERATURE = 0.3
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
NEIGHBORS = 10
DRAWS = 50
COLUMNS = 8  # neighbors of a digit in the picture


class ProgressBar(keras.callbacks.Callback):
    """One bar for the whole training, with the loss and the accuracy of the last epoch."""

    def on_train_begin(self, logs=None):
        """Open the bar."""
        self.bar = tqdm(total=self.params["epochs"], unit="epoch")

    def on_epoch_end(self, epoch, logs=None):
        """Advance it."""
        self.bar.set_postfix(
            loss=f"{logs['loss']:.3f}", kNN=f"{logs['val_knn_accuracy']:.3f}", refresh=False
        )
        self.bar.update()

    def on_train_end(self, logs=None):
        """Close it."""
        self.bar.close()


def parse_arguments():
    """The demonstration's flags."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the split, the training, the draws")
    parser.add_argument("--output", type=Path, default="demo-output", help="folder to write to")
    return parser.parse_args()


def build_model(digits, epochs, seed):
    """The model, ready for ``fit``."""
    num_images = len(digits.train)
    model = InstanceDiscrimination(
        common.build_encoder(digits.train.shape[1:]),
        num_instances=num_images,
        objective=NonParametricSoftmax(TEMPERATURE),
        augmenter=common.RandomAffine(seed=seed),
        seed=seed,
    )
    steps = epochs * math.ceil(num_images / BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(optimizer=keras.optimizers.Adam(schedule))
    return model


def train(model, digits, epochs):
    """Train, and return loss and kNN accuracy of every epoch. The accuracy decides nothing."""
    accuracy = KNNEvaluation(
        digits.test, digits.test_labels, digits.train_labels, digits.train, k=NEIGHBORS
    )
    history = model.fit(
        digits.train,
        np.arange(len(digits.train)),
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[accuracy, ProgressBar()],
    ).history
    return {"loss": history["loss"], "knn": history["val_knn_accuracy"]}


def embed(model, digits):
    """Unit embeddings of the training and of the held-out images."""
    return model.predict(digits.train, verbose=0), model.predict(digits.test, verbose=0)


def raw_pixels(digits):
    """The pixels themselves as unit rows: of the training and of the held-out images."""
    return tuple(unit(x.reshape(len(x), -1)) for x in (digits.train, digits.test))


def clustering_accuracy(rows, digits, seed):
    """Share of all images in the right cluster, under the best matching of clusters to digits."""
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    return clustering_scores(cluster(np.concatenate(rows), 10, seed), labels)["accuracy"]


def evaluate(rows, digits, seed):
    """The table's numbers for one representation."""
    train, test = rows
    train_labels, labels = digits.train_labels, digits.test_labels
    one_label = one_label_accuracies(train, train_labels, test, labels, DRAWS, seed)
    return {
        "knn": knn_accuracy(test, labels, train, train_labels, k=NEIGHBORS),
        "one_label": float(np.mean(one_label)),
        "one_label_std": float(np.std(one_label)),
        "clustering": clustering_accuracy(rows, digits, seed),
    }


def evaluate_baseline(rows, digits, seed):
    """The same for a baseline, with and without the training mean subtracted: the better of each.

    Where all rows point in nearly the same direction, their cosines differ little, and subtracting
    the mean can help. For each number a baseline gets whichever scores better.
    """
    mean = rows[0].mean(axis=0)
    as_is = evaluate(rows, digits, seed)
    centered = evaluate(tuple(unit(r - mean) for r in rows), digits, seed)
    better = {
        score: centered if centered[score] > as_is[score] else as_is
        for score in ("knn", "one_label", "clustering")
    }
    best = {score: source[score] for score, source in better.items()}
    best["one_label_std"] = better["one_label"]["one_label_std"]
    best["mean_subtracted"] = [score for score, source in better.items() if source is centered]
    return {**best, "without_subtraction": as_is, "with_subtraction": centered}


def table(scores, digits, seed):
    """The results as text, and how they were obtained."""
    lines = [f"{'':19}{'kNN, all labels':>17}{'one label per class':>23}{'clustering':>14}"]
    for name, score in scores.items():
        one_label = f"{score['one_label']:.3f} ± {score['one_label_std']:.3f}"
        lines.append(f"{name:19}{score['knn']:17.3f}{one_label:>23}{score['clustering']:14.3f}")
    n, held_out = len(digits.train), len(digits.test)
    how = (
        f"Accuracies, seed {seed}: trained on {n:,} digits, {held_out} held out, stratified. kNN: "
        f"the {NEIGHBORS} nearest training images vote on each held-out one. One label: the "
        "nearest of ten labeled training images, one of each digit, decides; mean and standard "
        f"deviation over {DRAWS} draws. Clustering: k-means of all {n + held_out:,}, best "
        "one-to-one matching. Pixels and untrained encoder: with the training mean subtracted "
        "wherever that scores better."
    )
    return "\n".join([*lines, "", textwrap.fill(how, 78, break_on_hyphens=False)])


def draw_curve(axes, curve, num_images):
    """Loss and kNN accuracy, epoch by epoch."""
    epochs = np.arange(1, len(curve["loss"]) + 1)
    axes.axhline(math.log(num_images), color="0.6", linestyle=":")
    axes.annotate(
        f"log {num_images}: guessing",
        (epochs[-1], math.log(num_images)),
        xytext=(0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color="0.4",
    )
    axes.plot(epochs, curve["loss"], color=COLORS[0], linewidth=2.5)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss in nats", color=COLORS[0])
    axes.tick_params(axis="y", colors=COLORS[0])
    right = axes.twinx()
    right.plot(epochs, curve["knn"], color=COLORS[3], linewidth=2.5, linestyle="--")
    right.set_ylabel("kNN accuracy, held-out", color=COLORS[3])
    right.tick_params(axis="y", colors=COLORS[3])
    right.set_ylim(0, 1)
    right.spines[["top"]].set_visible(False)
    axes.spines[["top"]].set_visible(False)
    axes.set_title("Training without labels")


def shown(images, labels):
    """Images of gray values in [0, 1] as an ImageSource: black digits on white."""
    gray = (255 * (1 - images)).astype("uint8")
    return ImageArray(np.repeat(gray, 3, axis=-1), labels)


def draw_picture(path, model, digits, curve, rows, seed):
    """Write the three panels to one picture."""
    train = shown(digits.train, digits.train_labels)
    test = shown(digits.test, digits.test_labels)
    labels = np.concatenate([train.labels, test.labels])
    everything = ImageArray(np.concatenate([train.images(), test.images()]), labels)
    queries = [int(np.flatnonzero(digits.test_labels == digit)[0]) for digit in range(10)]
    found = retrieve(rows[1], test, model.memory_bank, train, COLUMNS, queries)
    with plt.rc_context({"font.size": 13, "axes.titlesize": 15, "figure.titlesize": 15}):
        figure = plt.figure(figsize=(16, 5.6), layout="constrained")
        left, middle, right = figure.subfigures(1, 3, width_ratios=(1.1, 1, 1))
        draw_curve(left.subplots(), curve, len(digits.train))
        draw_tsne(
            middle,
            np.concatenate(rows),
            everything,
            seed=seed,
            title=f"t-SNE of all {len(labels):,} digits, colored by label",
        )
        title = f"Held-out digits, {COLUMNS} nearest (orange: wrong)"
        draw_neighbors(right, found.tiles(), title, captions=False)
        figure.savefig(path, dpi=100, facecolor="white")
        plt.close(figure)


def versions():
    """The version of everything that a number may depend on."""
    framework = importlib.import_module(keras.backend.backend())
    packages = (instdisc_core, keras, framework, np, scipy, sklearn, matplotlib)
    return {package.__name__: package.__version__ for package in packages}


def main():
    """Train, evaluate, draw."""
    args = parse_arguments()
    started = time.perf_counter()
    keras.utils.set_random_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    digits = common.load_images("digits", seed=args.seed)
    backend = keras.backend.backend()
    print(f"Training on {len(digits.train):,} digits without their labels, on {backend}.")

    model = build_model(digits, args.epochs, args.seed)
    untrained = embed(model, digits)
    training_started = time.perf_counter()
    curve = train(model, digits, args.epochs)
    training_seconds = time.perf_counter() - training_started
    learned = embed(model, digits)

    scores = {
        "raw pixels": evaluate_baseline(raw_pixels(digits), digits, args.seed),
        "untrained encoder": evaluate_baseline(untrained, digits, args.seed),
        "learned embedding": evaluate(learned, digits, args.seed),
    }
    print("\n" + table(scores, digits, args.seed) + "\n")

    picture, results = args.output / "digits.png", args.output / "results.json"
    draw_picture(picture, model, digits, curve, learned, args.seed)
    record = {
        "scores": scores,
        "curve": curve,
        "seed": args.seed,
        "epochs": args.epochs,
        "backend": backend,
        "versions": versions(),
        "num_train": len(digits.train),
        "num_held_out": len(digits.test),
        "seconds": {
            "training": round(training_seconds, 1),
            "total": round(time.perf_counter() - started, 1),
        },
    }
    results.write_text(json.dumps(record, indent=2) + "\n")
    print(f"All numbers: {results}")
    print(f"Picture: {picture}")


if __name__ == "__main__":
    main()
