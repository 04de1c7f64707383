"""Whether the verdict without labels ranks features as labels do, on three data sets.

    KERAS_BACKEND=torch python -m benchmarks.verdict --signs sign-digits --cifar cifar10

`sign-digits` is a folder with a subfolder for each class, `cifar10` one with `train` and `test`.
Each set is trained on once, and measured on the way: kNN on held-out images, and the tasks of the
verdict. One JSON file for each set and seed; what is stored is not run again.
"""

import json
import time

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks import cifar, harness
from benchmarks.agreement import agreement, features_of
from instdisc_core import recipes
from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.evaluation import Matching, evaluate

STAGES = (0, 1, 2, 5, 10, 25)  # epochs
SIZE, NEIGHBORS = 32, 20


def digits(args):
    """Scikit-learn's digits, enlarged."""
    found = load_digits()
    gray = np.repeat((found.images * 255 / 16).astype("uint8")[..., None], 3, axis=-1)
    images = np.stack([np.kron(image, np.ones((4, 4, 1), "uint8")) for image in gray])
    return halved(ImageArray(images, found.target))


def signs(args):
    """Photographs of hands that show digits."""
    return halved(ImageFolder(args.signs, SIZE, duplicates="keep"))


def cifar_images(args):
    """The first images of each class of CIFAR-10."""
    return cifar.load(args.cifar, 3000, 2000)


SETS = {"digits": digits, "sign-digits": signs, "CIFAR-10": cifar_images}


def halved(source):
    """Four fifths of the images to train on, and a fifth held out, of every class."""
    parts = train_test_split(
        np.arange(len(source)), test_size=0.2, stratify=source.labels, random_state=0
    )
    return tuple(source.subset(np.sort(part)) for part in parts)


def accuracies(model, train, test):
    """The accuracy of the nearest neighbors, by features."""
    report = evaluate(model, train, test, measures=["knn"], k=NEIGHBORS, temperature=0.1)
    return {name: report.value("kNN", name) for name in ("pixels", "encoder", "embedding")}


class Stages(keras.callbacks.Callback):
    """Measures the model after some of the epochs.

    Attributes:
        rows: dicts with the number of ``epochs``, ``knn``, ``tasks`` and the ``seconds`` of these.
    """

    def __init__(self, train, test):
        super().__init__()
        self.train, self.test, self.tasks, self.rows = train, test, Matching(train), []

    def on_train_begin(self, logs=None):
        """Measure the untrained model."""
        self.measure(0)

    def on_epoch_end(self, epoch, logs=None):
        """Measure it if this is a stage."""
        if epoch + 1 in STAGES:
            self.measure(epoch + 1)

    def measure(self, epochs):
        """Add a row."""
        start = time.perf_counter()
        tasks = self.tasks.of_model(self.model)
        seconds = time.perf_counter() - start
        knn = accuracies(self.model, self.train, self.test)
        self.rows.append({"epochs": epochs, "knn": knn, "tasks": tasks, "seconds": seconds})


def measured(name, seed, args):
    """The result of one set and seed."""
    train, test = SETS[name](args)
    recipe = recipes.get("small-cifar10", epochs=STAGES[-1])
    stages = Stages(train, test)
    recipe.train(train, seed=seed, callbacks=[stages], verbose=2, judge=False)
    return {
        "set": name,
        "seed": seed,
        "images": {"train": len(train), "test": len(test), "compared": len(stages.tasks.images)},
        "pixels": {"knn": stages.rows[0]["knn"]["pixels"], "tasks": stages.tasks.of_pixels()},
        "stages": stages.rows,
        "recipe": recipe.to_dict(),
        "machine": harness.machine(),
    }


def main():
    """Measure what is not stored, and print the agreement."""
    parser = harness.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--signs", default="sign-digits", help="a folder, a subfolder per class")
    parser.add_argument("--cifar", default="cifar10", help="a folder with train/ and test/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()

    folder, rows = harness.RESULTS / harness.labeled("verdict"), []
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        for seed in args.seeds:
            path = folder / f"{name}-seed{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(name, seed, args), indent=1) + "\n")
            result = json.loads(path.read_text())
            for features, (knn, score) in features_of(result).items():
                rows.append((name, seed, features, f"{knn:.3f}", f"{score:.3f}"))
            print(f"{name}, seed {seed}: {agreement(result)} pairs")
    harness.table(("set", "seed", "features", "kNN", "verdict"), rows)


if __name__ == "__main__":
    main()
