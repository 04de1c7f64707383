"""Embeddings of several small collections of images at equal time, next to what needs no training.

    KERAS_BACKEND=torch python -m benchmarks.folders --sets sets/signs sets/trash --minutes 10

A set is a folder with one subfolder for each class, of which a fifth is held out, the same fifth in
every run; or one with train/ and test/. One JSON file for each set, row and seed, under
`results/folders-...`. A row that is stored is not run again, and one that was interrupted continues
after its last whole epoch. How many epochs fit into the minutes is measured once for each set. With
--plan a call does only that, on a quiet machine; a later call trains as much, however busy the
machine is then. Test images choose nothing: with --choose a fifth of the training images takes
their place, and the results are stored apart. A training of lightly that was interrupted starts
again.
"""

import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np

from benchmarks import cifar, harness
from benchmarks.split import with_a_fifth_held_out
from instdisc_core import recipes
from instdisc_core.data import ImageFolder
from instdisc_core.evaluation import (
    cluster,
    clustering_scores,
    knn_accuracy,
    linear_accuracy,
    one_label_accuracies,
    unit,
    verdict,
    whitening,
)
from instdisc_core.files import replacing

SIDE = 32  # of the images that are described without training
NEIGHBORS, TEMPERATURE = 20, 0.1
COMPONENTS = 128  # of the whitened pixels
SVM_COMPONENTS = 512  # with more dimensions an SVM takes many minutes
FIXED = ("pixels", "whitened", "hog")
RIVALS = ("lightly-simclr", "lightly-nnclr")  # where lightly is installed
OWN = "for-images"  # the recipe that is chosen for the folder
CHANGES = {  # to the augmentation of that recipe, by what is appended to the name of its row
    "-mirrored": {"flip": True},  # also where mirror images look different
    "-recolored": {"strength": 0.5, "grayscale": 0.2},  # as usual, also where colors tell
}


def parts(folder, work, choose=False):
    """The folders of the training and of the test images.

    They are made of copies where the set has no split of its own, or ``choose`` splits its training
    images.
    """
    train, test = folder / "train", folder / "test"
    if not train.is_dir():
        train, test = split(folder, work / "split" / folder.name)
    return split(train, work / "choose" / folder.name) if choose else (train, test)


def split(folder, place):
    """Copies of a folder's images in ``train`` and, a fifth of each class, ``test``.

    They are in ``place``, in a folder that is named by the content of the images.
    """
    (source,) = read([folder], SIDE)
    place = place / source.manifest.fingerprint
    made = place / "train", place / "test"
    if (place / "complete").exists():
        return made
    shutil.rmtree(place, ignore_errors=True)
    for part, images in zip(made, with_a_fifth_held_out(source), strict=True):
        for name in images.names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, part / name)
    (place / "complete").touch()
    return made


def read(folders, size):
    """Training and test images of a size."""
    return tuple(
        ImageFolder(folder, size, corrupt="skip", duplicates="keep", verbose=False)
        for folder in folders
    )


def scores(rows, labels, seed):
    """The measures of unit rows: of a pair of arrays, the training and the test images'."""
    (train, test), (of_train, of_test) = rows, labels
    k = min(NEIGHBORS, len(train))
    clusters = cluster(test, len(np.unique(of_train)), seed)
    agreement = clustering_scores(clusters, of_test)
    one_label = one_label_accuracies(train, of_train, test, of_test, seed=seed)
    return {
        "knn": knn_accuracy(test, of_test, train, of_train, k, TEMPERATURE),
        "one_label": float(one_label.mean()),
        "svm": linear_accuracy(*shortened(train, test, of_train, of_test), seed=seed).accuracy,
        "clustering": agreement["accuracy"],
        "nmi": agreement["nmi"],
    }


def shortened(train, test, of_train, of_test):
    """Arguments of ``linear_accuracy``; rows of many dimensions are their principal components."""
    if train.shape[1] > SVM_COMPONENTS:
        from sklearn.decomposition import PCA

        found = PCA(min(SVM_COMPONENTS, len(train)), random_state=0).fit(train)
        train, test = found.transform(train), found.transform(test)
    return train, of_train, test, of_test


def fixed_rows(name, images):
    """Unit rows of training and test images that need no training: uint8 arrays of the images."""
    if name == "hog":
        return tuple(unit(descriptors(one)) for one in images)
    train, test = (one.reshape(len(one), -1).astype("float32") for one in images)
    mean = train.mean(axis=0)
    if name == "whitened":
        from sklearn.decomposition import PCA

        whitening = PCA(min(COMPONENTS, *train.shape), whiten=True, random_state=0).fit(train)
        return tuple(unit(whitening.transform(one)) for one in (train, test))
    return unit(train - mean), unit(test - mean)


def descriptors(images):
    """Histograms of oriented gradients, of 4 x 4 pixels each."""
    from skimage.feature import hog

    cells = {"pixels_per_cell": (4, 4), "cells_per_block": (2, 2), "channel_axis": -1}
    return np.stack([hog(image, **cells) for image in images]).astype("float32")


def learned_rows(model, sources):
    """Unit rows of a model by name: its embeddings, and its encoder's features, also whitened."""
    encoder = [
        np.concatenate(
            [
                keras.ops.convert_to_numpy(model.encode(images, training=False)).astype("float32")
                for (images,) in source.ordered()
            ]
        )
        for source in sources
    ]
    white = whitening(encoder[0])
    return {
        "embedding": tuple(model.predict(source.ordered(), verbose=0) for source in sources),
        "encoder": tuple(unit(rows) for rows in encoder),
        "whitened": tuple(white(rows) for rows in encoder),
    }


def known_seconds(measured, key, measure):
    """The seconds of a training step that a file holds under a key; measured now if it does not."""
    found = json.loads(measured.read_text()) if measured.exists() else {}
    if key not in found:
        found[key] = measure()
        measured.parent.mkdir(parents=True, exist_ok=True)
        with replacing(measured) as part:
            part.write_text(json.dumps(found, indent=1) + "\n")
    return found[key]


def recipe_for(row, folder, count, minutes, measured):
    """The recipe of a row, with as many epochs as fit into the minutes; see ``known_seconds``."""

    def speed(recipe):
        name = OWN if row.startswith(OWN) else row
        key = f"{name}, {recipe.image_size} pixels, {recipe.dtype_policy}"
        return known_seconds(measured, key, lambda: recipes.seconds_per_step(recipe, count))

    if row.startswith(OWN):
        recipe = recipes.for_images(folder, minutes, speed=speed)
        change = row.removeprefix(OWN)
        return recipe.with_augmentation(**CHANGES[change]) if change else recipe
    recipe = recipes.get("small-cifar10" if row == "untrained" else row)
    if row == "untrained":
        return recipe
    return recipes.in_time(recipe, count, minutes, speed(recipe))


def rival(row, sources, seed, minutes, measured):
    """A training of lightly with the encoder of our recipes, and its epochs; see ``known_seconds``.

    It takes the faster of two number formats, and all of the time.
    """
    from benchmarks.native.lightly_methods import BATCH, Training

    recipe, images = recipes.get("small-cifar10"), sources[0].images()
    encoder = recipe.build(len(images), seed=seed).encoder
    shape = recipe.depth, recipe.stem, recipe.width

    def seconds(bfloat16):
        training = Training(row, encoder, shape, images, seed, bfloat16)
        key = f"{row}, {'bfloat16' if bfloat16 else 'float32'}"
        return known_seconds(measured, key, training.seconds_per_step)

    step, bfloat16 = min((seconds(bfloat16), bfloat16) for bfloat16 in (False, True))
    epochs = max(1, int(60 * minutes / (step * max(1, len(images) // BATCH))))
    return Training(row, encoder, shape, images, seed, bfloat16), epochs


def rival_rows(training, sources):
    """Unit rows of a training of lightly by name, as ``learned_rows`` has them."""
    found = [training.features(source.images()) for source in sources]
    white = whitening(found[0]["encoder"])
    rows = {name: tuple(unit(one[name]) for one in found) for name in ("embedding", "encoder")}
    return rows | {"whitened": tuple(white(one["encoder"]) for one in found)}


def run(place, name, row, seed, folders, args, deadline):
    """Measure one row of a set, unless its result is stored; return the result.

    None where nothing was to be trained yet.
    """
    path = place / f"{name}-{row}-seed{seed}.json"
    sources = read(folders, SIDE)
    about = {
        "minutes": None if row in FIXED else args.minutes,
        "fingerprints": [source.manifest.fingerprint for source in sources],
    }
    if path.exists():
        stored = json.loads(path.read_text())
        if any(stored.get(key) != value for key, value in about.items()):
            raise SystemExit(f"{path} is of other minutes or other images: move it away first")
        print(f"already stored: {path.name}")
        return stored
    result = {"set": name, "row": row, "seed": seed, **about}
    measured = args.work / place.name / f"{name}-seconds-per-step.json"
    if row in FIXED:
        rows = {"embedding": fixed_rows(row, [source.images() for source in sources])}
    elif row in RIVALS:
        training, epochs = rival(row, sources, seed, args.minutes, measured)
        if args.plan:
            return None
        training.train(epochs)
        rows = rival_rows(training, sources)
        result |= {"epochs": epochs, "bfloat16": training.bfloat16}
    else:
        work = args.work / place.name / f"{name}-{row}-{args.minutes:g}-minutes-seed{seed}"
        recipe = recipe_for(row, folders[0], len(sources[0]), args.minutes, measured)
        if args.plan:
            return None
        sources = read(folders, recipe.image_size)
        clock = cifar.Clock()
        if row == "untrained":
            model = recipe.build(len(sources[0]), seed=seed)
        else:
            model = recipe.train(sources[0], work, seed, [clock, deadline], verbose=2, judge=False)
            if deadline.stopped:
                print(f"{path.name} is not finished; the same command continues", flush=True)
                sys.exit(cifar.UNFINISHED)
            result["verdict"] = verdict(model, sources[0]).scores
        rows = learned_rows(model, sources)
        result |= {"training_seconds": clock.seconds, "recipe": recipe.to_dict()}
    labels = [source.labels for source in sources]
    result |= {
        "images": {"train": len(sources[0]), "test": len(sources[1])},
        "classes": len(sources[0].class_names),
        "scores": {kind: scores(pair, labels, seed) for kind, pair in rows.items()},
        "machine": harness.machine(),
    }
    place.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    return result


def main():
    """Run the rows whose results are missing, and print the table."""
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--sets", nargs="+", type=Path, required=True, help="folders")
    add("--rows", nargs="+", default=[*FIXED, "untrained", "small-cifar10", OWN])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--minutes", type=float, default=10, help="of each training")
    add("--plan", action="store_true", help="only measure how fast each training will be")
    add("--stop-after", type=float, help="minutes of this call; run again to continue")
    add("--choose", action="store_true", help="measure on a fifth of the training images")
    add("--work", type=Path, default="build/runs", help="where splits and unfinished runs are kept")
    args = parser.parse_args()

    place = harness.RESULTS / harness.labeled("folders-choose" if args.choose else "folders")
    deadline = cifar.Deadline(args.stop_after)
    results = []
    for seed in args.seeds:
        for folder in args.sets:
            folders = parts(folder, args.work, args.choose)
            for row in args.rows:
                if row not in FIXED or seed == args.seeds[0]:  # they are equal in all
                    found = run(place, folder.name, row, seed, folders, args, deadline)
                    results += [found] if found else []
    names = ("knn", "one_label", "svm", "clustering", "nmi")
    harness.table(
        ("set", "row", "features", "seed", *names),
        [
            (r["set"], r["row"], kind, r["seed"], *(f"{found[n]:.3f}" for n in names))
            for r in results
            for kind, found in r["scores"].items()
        ],
    )


if __name__ == "__main__":
    main()
