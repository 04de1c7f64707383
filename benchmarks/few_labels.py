"""Accuracy with few labels: after training without labels, here or elsewhere, and from scratch.

    KERAS_BACKEND=torch python -m benchmarks.few_labels --set sets/signs \
        --trained signs=runs/signs trash=runs/trash

Encoder and a linear classifier are trained with a part of the labels, for the same number of steps,
from each start. A start is the folder of a training, with its `recipe.json` and `model.keras`; the
recipe of the first is also the one of "from scratch". A set is a folder as in `benchmarks.folders`,
with the same images held out. One JSON file for each start, learning rate and seed; what is stored
is not run again.
"""

import json
import math
from pathlib import Path

import keras

from benchmarks import harness
from benchmarks.folders import parts, read
from instdisc_core import recipes
from instdisc_core.evaluation import fine_tuned_accuracy, labeled_subset
from instdisc_core.files import replacing

SCRATCH, BATCH = "from scratch", 64


def epochs(train, fraction, steps, seed):
    """How many passes over the labeled images make so many steps."""
    labeled = len(labeled_subset(train.labels, fraction, seed))
    return math.ceil(steps / max(1, labeled // BATCH))


def settings(folder, rate, seed, args):
    """Training and test images, the recipe, and what a stored result must agree with."""
    recipe = recipes.for_images(args.set, output=folder, verbose=False)
    train, test = read(parts(args.set, args.work), recipe.image_size)
    about = {
        "set": args.set.name,
        "learning_rate": rate,
        "seed": seed,
        "steps": args.steps,
        "fingerprints": [source.manifest.fingerprint for source in (train, test)],
        "recipe": json.loads(json.dumps(recipe.to_dict())),
    }
    return train, test, recipe, about


def measured(start, folder, rate, seed, args):
    """The accuracy for each share of the labels."""
    train, test, recipe, about = settings(folder, rate, seed, args)
    model = (
        recipe.build(len(train), seed=seed)
        if start == SCRATCH
        else keras.saving.load_model(folder / "model.keras")
    )
    accuracies = {
        fraction: fine_tuned_accuracy(
            model,
            train,
            test,
            fraction,
            epochs(train, fraction, args.steps, seed),
            rate,
            BATCH,
            seed,
        )
        for fraction in args.fractions
    }
    return {
        **about,
        "start": start,
        "accuracies": accuracies,
        "images": {"train": len(train), "test": len(test)},
        "classes": len(train.class_names),
        "machine": harness.machine(),
    }


def check(path, folder, rate, seed, args):
    """The accuracies that are stored, once their settings are these."""
    stored, about = json.loads(path.read_text()), settings(folder, rate, seed, args)[-1]
    about["fractions"] = [str(fraction) for fraction in args.fractions]
    there = {**stored, "fractions": list(stored["accuracies"])}
    others = [name for name, value in about.items() if there.get(name) != value]
    if others:
        raise SystemExit(f"{path} has other {', '.join(others)}: move it away first")
    return stored["accuracies"]


def main():
    """Measure what is not stored, and print the table."""
    parser = harness.parser(__doc__, steps=300)
    add = parser.add_argument
    add("--set", type=Path, required=True, help="a folder")
    add("--trained", nargs="+", required=True, metavar="NAME=FOLDER", help="what to start from")
    add("--fractions", nargs="+", type=float, default=[0.01, 0.02, 0.04, 0.1, 0.2])
    add("--rates", nargs="+", type=float, default=[0.01, 0.1], help="learning rates")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--work", type=Path, default="build/runs", help="where the split of the set is kept")
    args = parser.parse_args()

    starts = {name: Path(folder) for name, _, folder in (s.partition("=") for s in args.trained)}
    starts[SCRATCH] = next(iter(starts.values()))
    place, rows = harness.RESULTS / harness.labeled("few-labels"), []
    place.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for start, folder in starts.items():
            for rate in args.rates:
                name = f"{args.set.name}-{start.replace(' ', '-')}-rate{rate:g}-seed{seed}.json"
                if not (place / name).exists():
                    result = measured(start, folder, rate, seed, args)
                    with replacing(place / name) as part:
                        part.write_text(json.dumps(result, indent=1) + "\n")
                found = check(place / name, folder, rate, seed, args)
                rows.append((start, rate, seed, *(f"{value:.3f}" for value in found.values())))
    harness.table(("start", "rate", "seed", *(f"{f:.0%}" for f in args.fractions)), rows)


if __name__ == "__main__":
    main()
