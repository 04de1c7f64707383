"""What an encoder from a file of weights is worth: as it is, adapted, and against none.

    KERAS_BACKEND=torch python -m benchmarks.pretrained --signs sign-digits --cifar cifar10

An encoder is trained on CIFAR-10 by instance discrimination and saved to a file of weights. The
rows start from that file, on photographs of hands that show digits, by the setting `weights` of a
recipe. One JSON file for each row and seed; what is stored is not run again.
"""

import json
from pathlib import Path

from benchmarks import cifar, harness
from benchmarks.split import with_a_fifth_held_out
from instdisc_core import recipes
from instdisc_core.data import ImageFolder
from instdisc_core.evaluation import evaluate
from instdisc_core.frozen_encoder import frozen

SIZE, NEIGHBORS = 32, 20
ROWS = {  # changes to the recipe; a row without epochs trains nothing
    "untrained": {"epochs": 0},
    "from scratch": {},
    "frozen": {"epochs": 0, "weights": True},
    "head alone": {"weights": True, "encoder_rate": 0.0},
    "adapted, rate 0.1": {"weights": True, "encoder_rate": 0.1},
    "adapted, rate 0.3": {"weights": True, "encoder_rate": 0.3},
    "adapted, rate 1": {"weights": True},
}


def trained_on_cifar(args):
    """The file of weights, which is written where it is missing."""
    file = args.work / "cifar10.weights.h5"
    if not file.exists():
        train = cifar.evenly(
            ImageFolder(Path(args.cifar) / "train", SIZE, duplicates="keep"), 10_000
        )
        recipe = recipes.get("small-cifar10")
        recipe.train(train, args.work / "cifar10", verbose=2).encoder.save_weights(file)
    return str(file)


def measured(name, seed, file, args):
    """The result of one row and seed."""
    changes = {"epochs": args.epochs, **ROWS[name]}
    if changes.pop("weights", False):
        changes["weights"] = file
    train, test = with_a_fifth_held_out(ImageFolder(args.signs, SIZE, duplicates="keep"))
    recipe = recipes.get("small-cifar10", **changes)
    if recipe.epochs:
        model = recipe.train(train, seed=seed, verbose=2, judge=False)
    else:
        model = frozen(recipe.build(len(train), seed=seed).encoder)
    report = evaluate(model, train, test, measures=["knn", "linear"], k=NEIGHBORS, temperature=0.1)
    features = {
        kind: {row["measure"]: row["value"] for row in report.rows if row["features"] == kind}
        for kind in ("pixels", "encoder", "embedding")
    }
    return {
        "row": name,
        "seed": seed,
        "features": features,
        "images": {"train": len(train), "test": len(test)},
        "recipe": {**recipe.to_dict(), "weights": recipe.weights and Path(recipe.weights).name},
        "machine": harness.machine(),
    }


def main():
    """Measure what is not stored, and print the table."""
    parser = harness.parser(__doc__, epochs=25)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--signs", default="sign-digits", help="a folder, a subfolder per class")
    parser.add_argument("--cifar", default="cifar10", help="a folder with train/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default="build/pretrained", help="of the first run")
    args = parser.parse_args()

    file = trained_on_cifar(args)
    folder, rows = harness.RESULTS / harness.labeled("pretrained"), []
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.rows:
        for seed in args.seeds:
            path = folder / f"{name.replace(' ', '-').replace(',', '')}-seed{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(name, seed, file, args), indent=1) + "\n")
            result = json.loads(path.read_text())
            found = [result["features"][kind]["kNN"] for kind in ("encoder", "embedding")]
            rows.append((name, seed, *(f"{value:.3f}" for value in found)))
    harness.table(("row", "seed", "kNN, encoder", "kNN, embedding"), rows)


if __name__ == "__main__":
    main()
