"""CIFAR-10 and digits for the experiments, and the accuracies of a model trained on them."""

import csv
import json
import math
import sys
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks import frameworks, harness
from benchmarks.split import with_a_fifth_held_out
from instdisc_core import recipes
from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.evaluation import evaluate

TRAIN_IMAGES, TEST_IMAGES = 10_000, 5_000  # of the small version
ACCURACIES = {  # rows of a report, by the names that results are stored under
    "knn": ("kNN", "embedding"),
    "knn_bank": ("kNN", "bank rows"),
    "knn_encoder": ("kNN", "encoder"),
    "knn_whitened": ("kNN", "encoder, whitened"),
    "svm": ("linear, svm", "embedding"),
    "clustering": ("clustering accuracy", "embedding"),
    "nmi": ("clustering nmi", "embedding"),
    "ari": ("clustering ari", "embedding"),
}
DIGITS, DIGITS_NEIGHBORS = "digits", 20  # instead of a recipe's: a class has 140 images
DATA = {"keras": "keras.datasets", DIGITS: "scikit-learn"}
UNFINISHED = 75  # the exit status of a run that continues when it is started again
EPOCHS_A_CHECKPOINT = 10  # on a device that trains an epoch in the time of a few checkpoints


def add_arguments(parser):
    """The flags that say which images, and how many."""
    add = parser.add_argument
    add(
        "--data",
        default="keras",
        help="a folder with train/ and test/; 'keras' downloads CIFAR-10; 'digits': scikit-learn's",
    )
    add("--budget", action="store_true", help="the small version: 10,000 images, a small encoder")
    add("--images", type=int, help="training images, evenly over the classes")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--work", type=Path, default="build/runs", help="where unfinished runs are kept")
    add("--minutes", type=float, help="stop after the epoch that ends then; run again to continue")
    add("--on-device", action="store_true", help="as on a GPU: images stay there, bfloat16")
    add("--dtype-policy", help="instead of the recipe's, such as float32 where bfloat16 is slow")


def folder(name, args):
    """Where the results of an experiment are."""
    size = "small" if args.budget else "full"
    name = f"{name}-{DIGITS}" if args.data == DIGITS else name
    return harness.RESULTS / harness.labeled(f"{name}-{size}")


def load_for(args):
    """Training and test images as the flags say."""
    small = args.budget
    images = args.images or (TRAIN_IMAGES if small else None)
    return load(args.data, images, TEST_IMAGES if small else None)


def changes(args, row):
    """The changes to the recipe that a row, the flags and the device make."""
    changed = dict(row)
    if args.epochs and changed.get("epochs") != 0:
        changed["epochs"] = args.epochs
    if args.on_device or frameworks.on_accelerator():
        changed["dtype_policy"] = "mixed_bfloat16"
    if args.dtype_policy:
        changed["dtype_policy"] = args.dtype_policy
    if args.data == DIGITS:
        changed["num_neighbors"] = DIGITS_NEIGHBORS
    return changed


def load(data, num_train=None, num_test=None):
    """Training and test images as two ImageSources, the first ones of each class."""
    if data == "keras":
        (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
        sources = ImageArray(x, y[:, 0]), ImageArray(x_test, y_test[:, 0])
    elif data == DIGITS:
        sources = digits()
    else:
        sources = (ImageFolder(Path(data) / s, 32, duplicates="keep") for s in ("train", "test"))
    return tuple(
        evenly(source, count) for source, count in zip(sources, (num_train, num_test), strict=True)
    )


def digits():
    """The ``enlarged_digits`` as two ImageSources; a fifth is held out."""
    return with_a_fifth_held_out(ImageArray(*enlarged_digits()))


def enlarged_digits():
    """scikit-learn's 1,797 digits as color images of 32 pixels, and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    gray = np.repeat((found.images * 255 / 16).astype("uint8")[..., None], 3, axis=-1)
    return np.stack([np.kron(image, np.ones((4, 4, 1), "uint8")) for image in gray]), found.target


def evenly(source, count):
    """The first images of every class, ``count`` in all; None, or as many as there are, is all."""
    if count is None or count >= len(source):
        return source
    classes = np.unique(source.labels)
    each = count // len(classes)
    members = [np.flatnonzero(source.labels == c)[:each] for c in classes]
    return source.subset(np.sort(np.concatenate(members)))


def measured(model, train, test, recipe):
    """Accuracies on the test images, of a model and of the pixels.

    Neighbors are training images, embedded again without augmentation, or as the bank has them.

    Returns:
        Two dicts: of the model, with the keys of ``ACCURACIES``, those of the bank only where there
        is one, and ``svm_strength``; and of the pixels, with ``knn``.
    """
    if model.manifest is None:  # it was not trained: its bank has random rows
        model.manifest = train.manifest
    report = evaluate(
        model,
        train,
        test,
        measures=("knn", "linear", "clustering"),
        k=recipe.num_neighbors,
        temperature=recipe.knn_temperature,
    )
    values = {(row["measure"], row["features"]): row["value"] for row in report.rows}
    accuracies = {name: values[which] for name, which in ACCURACIES.items() if which in values}
    accuracies["svm_strength"] = report.row("linear, svm", "embedding")["settings"]["C"]
    return accuracies, {"knn": values["kNN", "pixels"]}


class Clock(keras.callbacks.Callback):
    """How long the epochs of a training took; the first callback, so that no other's time counts.

    Attributes:
        seconds: float; a run that continues counts on from its checkpoint.
    """

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        """Start."""
        self._since = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Add the time of the epoch."""
        self.seconds += time.perf_counter() - self._since

    def get_state(self):
        """What a checkpoint keeps."""
        return {"seconds": np.array(self.seconds)}

    def set_state(self, state):
        """Take over what ``get_state`` returned."""
        self.seconds = float(state["seconds"])


class Deadline(keras.callbacks.Callback):
    """Stops a training after the last epoch that ends in time.

    Args:
        minutes: until then, from now; None never stops it.

    Attributes:
        stopped: bool.
    """

    def __init__(self, minutes=None):
        super().__init__()
        self.ends = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self.stopped = False

    def on_epoch_begin(self, epoch, logs=None):
        """Start."""
        self._since = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Stop if another epoch of the same length would end too late."""
        now = time.monotonic()
        last = self.params["epochs"] == epoch + 1
        self.stopped = not last and now + (now - self._since) > self.ends
        self.model.stop_training = self.model.stop_training or self.stopped


def run(folder, name, seed, recipe, train, test, args, deadline, course=None):
    """Train and measure one row, unless its result is stored; return the result.

    The process ends with the status UNFINISHED where the training was stopped at the deadline.

    Args:
        folder: of the results, with a JSON file for each row and seed.
        name: of the row.
        seed: of the training.
        recipe: its Recipe; with no epochs the untrained encoder is measured.
        train, test: the images.
        args: the flags.
        deadline: the Deadline.
        course: function of recipe, training and test images that returns the callback that logs
            the accuracy over the training; or None.
    """
    path = folder / f"{name}-seed{seed}.json"
    about = {"train": len(train), "test": len(test)}
    if path.exists():
        stored = json.loads(path.read_text())
        if (stored["recipe"], stored["images"]) != (recipe.to_dict(), about):
            raise SystemExit(f"{path} is of another recipe or other images: move it away first")
        print(f"already stored: {path.name}")
        return stored
    work = args.work / folder.name / f"{name}-seed{seed}"
    clock = Clock()
    fast = args.on_device or frameworks.on_accelerator()
    if recipe.epochs:
        callbacks = [clock, deadline, *([course(recipe, train, test)] if course else [])]
        steps = len(train.batches(recipe.batch_size, drop_remainder=recipe.drop_remainder))
        model = recipe.train(
            train,
            work,
            seed,
            callbacks,
            verbose=2,
            on_device=fast,
            save_freq=EPOCHS_A_CHECKPOINT * steps if fast else "epoch",
            judge=False,
        )
        if deadline.stopped:
            print(f"{path.name} is not finished; the same command continues", flush=True)
            sys.exit(UNFINISHED)
    else:
        model = recipe.build(len(train), seed=seed)
    accuracies, of_pixels = measured(model, train, test, recipe)
    result = {
        "row": name,
        "seed": seed,
        "images": about,
        "data": DATA.get(args.data, "JPEG copy"),
        "training_seconds": clock.seconds,
        "accuracies": accuracies,
        "pixels": of_pixels,
        "course": logged(work / "log.csv", "val_knn_accuracy"),
        "recipe": recipe.to_dict(),
        "machine": harness.machine(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path.name}: {result['accuracies']} in {clock.seconds:.0f} s", flush=True)
    return result


def logged(path, name):
    """Epochs and values of a column of the log of a training, where there are any."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        found = [(int(row["epoch"]) + 1, row.get(name)) for row in csv.DictReader(file)]
    return [(epoch, float(value)) for epoch, value in found if value]


def run_rows(experiment, rows, args, training=lambda row, train: train, course=None, base=None):
    """Run the rows of an experiment whose results are missing, and print its table.

    Args:
        experiment: its name.
        rows: pairs of a row's name and its changes to the recipe.
        args: the flags.
        training: function of a row's name and all training images that returns those to train on.
        course: see ``run``.
        base: name of the recipe that the rows change; None is the experiment of the paper.
    """
    base = base or ("small-cifar10" if args.budget else "paper-cifar10")
    deadline = Deadline(args.minutes)
    place = folder(experiment, args)
    train, test = load_for(args)
    print_table(
        [
            run(
                place,
                row,
                seed,
                recipes.get(base, **changes(args, changed)),
                training(row, train),
                test,
                args,
                deadline,
                course,
            )
            for seed in args.seeds
            for row, changed in rows
        ]
    )


def print_table(results):
    """Print the results of all rows."""
    shown = ("knn", "knn_whitened", "knn_bank", "svm", "clustering")
    harness.table(
        ("row", "seed", "kNN", "whitened", "bank", "SVM", "clustering", "pixels, kNN", "s"),
        [
            (
                result["row"],
                result["seed"],
                *(f"{result['accuracies'].get(key, math.nan):.3f}" for key in shown),
                f"{result['pixels']['knn']:.3f}",
                f"{result['training_seconds']:.0f}",
            )
            for result in results
        ],
    )
