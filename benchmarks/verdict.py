"""Whether the verdict without labels ranks features as labels do, on several data sets.

    KERAS_BACKEND=torch python -m benchmarks.verdict --cifar cifar10 --folders sign-digits

`cifar10` is a folder with `train` and `test`; each other folder too, or it has a subfolder for each
class. Each set is trained on once, and measured on the way: kNN on held-out images, and the tasks
of the verdict. One JSON file for each set and seed; what is stored is not run again.
"""

import json
import time
from functools import partial
from pathlib import Path

import keras

from benchmarks import cifar, harness
from benchmarks.agreement import agreement, features_of
from benchmarks.cifar import digits
from benchmarks.split import with_a_fifth_held_out
from instdisc_core import recipes
from instdisc_core.data import ImageFolder
from instdisc_core.evaluation import Matching, evaluate

STAGES = (0, 1, 5, 25)  # epochs
SIZE, NEIGHBORS = 32, 20


def folder(path):
    """The images of a folder: its own parts ``train`` and ``test``, or a fifth held out."""
    if (path / "train").is_dir():
        parts = (ImageFolder(path / part, SIZE, duplicates="keep") for part in ("train", "test"))
        return tuple(parts)
    return with_a_fifth_held_out(ImageFolder(path, SIZE, duplicates="keep"))


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


def measured(name, seed, load):
    """The result of one set and seed; ``load`` gives its training and test images."""
    train, test = load()
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
    parser.add_argument("--cifar", type=Path, help="a folder with train/ and test/")
    parser.add_argument("--folders", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()

    sets = {"digits": digits} | {path.name: partial(folder, path) for path in args.folders}
    if args.cifar:
        sets["CIFAR-10"] = partial(cifar.load, args.cifar, 3000, 2000)
    place, rows = harness.RESULTS / harness.labeled("verdict"), []
    place.mkdir(parents=True, exist_ok=True)
    for name, load in sets.items():
        for seed in args.seeds:
            path = place / f"{name}-seed{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(name, seed, load), indent=1) + "\n")
            result = json.loads(path.read_text())
            for features, (knn, score) in features_of(result).items():
                rows.append((name, seed, features, f"{knn:.3f}", f"{score:.3f}"))
            print(f"{name}, seed {seed}: {agreement(features_of(result))} pairs")
    harness.table(("set", "seed", "features", "kNN", "verdict"), rows)


if __name__ == "__main__":
    main()
