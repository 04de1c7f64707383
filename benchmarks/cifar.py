"""CIFAR-10 for the experiments, and what is measured of a trained model there."""

import json
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks import frameworks, harness
from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.evaluation import knn_accuracy, linear_accuracy
from instdisc_core.evaluation.features import embeddings, encoder_features, pixels, unit

TRAIN_IMAGES, TEST_IMAGES = 10_000, 5_000  # of the small version


def add_arguments(parser):
    """The flags that say which images, and how many."""
    add = parser.add_argument
    add("--data", default="keras", help="'keras' downloads; or a folder with train/ and test/")
    add("--budget", action="store_true", help="the small version: 10,000 images, a small encoder")
    add("--images", type=int, help="training images, evenly over the classes")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--work", type=Path, default="build/runs", help="where unfinished runs are kept")


def folder(name, args):
    """Where the results of an experiment are."""
    size = "small" if args.budget else "full"
    kind = "cuda" if frameworks.on_accelerator() else "cpu"
    return harness.RESULTS / f"{name}-{size}-{keras.backend.backend()}-{kind}"


def load_for(args):
    """Training and test images as the flags say."""
    small = args.budget
    images = args.images or (TRAIN_IMAGES if small else None)
    return load(args.data, images, TEST_IMAGES if small else None)


def changes(args, row, epochs=None):
    """A row's changes to the recipe, with those that the flags and the device make."""
    common = {"epochs": args.epochs or epochs} if args.epochs or epochs else {}
    if frameworks.on_accelerator():
        common["dtype_policy"] = "mixed_bfloat16"
    return {**common, **row}


def load(data, num_train=None, num_test=None):
    """Training and test images as two ImageSources, the first ones of each class."""
    if data == "keras":
        (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
        sources = ImageArray(x, y[:, 0]), ImageArray(x_test, y_test[:, 0])
    else:
        sources = (ImageFolder(Path(data) / s, 32, duplicates="keep") for s in ("train", "test"))
    return tuple(
        evenly(source, count) for source, count in zip(sources, (num_train, num_test), strict=True)
    )


def evenly(source, count):
    """The first images of every class, ``count`` in all; None is all images."""
    if count is None or count == len(source):
        return source
    classes = np.unique(source.labels)
    each = count // len(classes)
    members = [np.flatnonzero(source.labels == c)[:each] for c in classes]
    return source.subset(np.sort(np.concatenate(members)))


def measured(model, train, test, recipe):
    """Accuracies of a model by kNN and SVM on the test images.

    Neighbours are training images, embedded anew without augmentation, or as the bank has them.
    """
    settings = {
        "k": min(recipe.num_neighbours, len(train)),
        "temperature": recipe.knn_temperature,
    }
    ours, theirs = embeddings(model, train), embeddings(model, test)
    features = [unit(encoder_features(model, source)) for source in (train, test)]
    bank = model.memory_bank.rows
    svm, strength = linear_accuracy(ours, train.labels, theirs, test.labels)
    return {
        "knn": knn_accuracy(theirs, test.labels, ours, train.labels, **settings),
        "knn_bank": knn_accuracy(theirs, test.labels, bank, train.labels, **settings),
        "knn_encoder": knn_accuracy(
            features[1], test.labels, features[0], train.labels, **settings
        ),
        "svm": svm,
        "svm_strength": strength,
    }


def measured_pixels(train, test, recipe):
    """The same of the pixels themselves, less their mean."""
    rows, mean = pixels(train)
    accuracy = knn_accuracy(
        pixels(test, mean)[0],
        test.labels,
        rows,
        train.labels,
        k=min(recipe.num_neighbours, len(train)),
        temperature=recipe.knn_temperature,
    )
    return {"knn": accuracy}


def run(folder, name, seed, recipe, train, test, args, callbacks=()):
    """Train one row and measure it, unless its result is there; return the result.

    Args:
        folder: where the results are, a JSON file a row and seed.
        name: of the row.
        seed: of the training.
        recipe: its Recipe; None measures the pixels; one of no epochs the untrained encoder.
        train, test: the images.
        args: the flags.
        callbacks: of ``fit``.
    """
    path = folder / f"{name}-seed{seed}.json"
    if path.exists():
        print(f"there already: {path.name}")
        return json.loads(path.read_text())
    start = time.perf_counter()
    work = args.work / folder.name / f"{name}-seed{seed}"
    fast = frameworks.on_accelerator()
    if recipe.epochs:
        model = recipe.train(
            train, work, seed, callbacks, verbose=2, jit_compile=fast or "auto", on_device=fast
        )
    else:
        model = recipe.build(len(train), seed=seed)
    seconds = time.perf_counter() - start
    result = {
        "row": name,
        "seed": seed,
        "images": {"train": len(train), "test": len(test)},
        "data": "JPEG copy" if args.data != "keras" else "keras.datasets",
        "training_seconds": seconds,
        "accuracies": measured(model, train, test, recipe),
        "pixels": measured_pixels(train, test, recipe),
        "recipe": recipe.to_dict(),
        "machine": harness.machine(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path.name}: {result['accuracies']} in {seconds:.0f} s", flush=True)
    return result


def print_table(results):
    """Print the results of all rows."""
    harness.table(
        ("row", "seed", "kNN", "kNN, bank", "SVM", "pixels, kNN", "s"),
        [
            (
                result["row"],
                result["seed"],
                *(f"{result['accuracies'][key]:.3f}" for key in ("knn", "knn_bank", "svm")),
                f"{result['pixels']['knn']:.3f}",
                f"{result['training_seconds']:.0f}",
            )
            for result in results
        ],
    )
