"""From a folder of images to a page of neighbors: train without labels, and see similar images.

    python examples/photos.py path/to/photos
    KERAS_BACKEND=torch python examples/photos.py photos --size 64 --epochs 50 --output found
    python examples/photos.py train --test test      # classes in subfolders: an evaluation as well

Writes to the output folder: `manifest.csv` (which file is which instance), `model.keras`,
`log.csv`, `log.png`, `neighbors.html`, `tsne.png`, and with `--test` the folder `report`. Started
again with the same arguments after an interruption, it continues after the last complete epoch.
"""

import argparse
from pathlib import Path

import numpy as np

from instdisc_core import recipes
from instdisc_core.callbacks import BankHealth, plot_log
from instdisc_core.data import ImageFolder
from instdisc_core.evaluation import evaluate, plot_tsne, retrieve


def parse_arguments():
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="of images, flat or one subfolder per class")
    add("--test", type=Path, help="a folder of other images of the same classes, to evaluate on")
    add("--recipe", choices=recipes.names(), default="small-cifar10")
    add("--size", type=int, default=32, help="side in pixels to which images are resized")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--seed", type=int, default=0)
    add("--output", type=Path, default="found", help="folder to write to")
    return parser.parse_args()


def main():
    """Train, show neighbors, evaluate."""
    args = parse_arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    manifest = args.output / "manifest.csv"
    photos = ImageFolder(
        args.folder, args.size, corrupt="skip", duplicates="drop", manifest=manifest
    )

    recipe = recipes.get(args.recipe)
    changes = {
        "image_size": args.size,
        "crop_size": recipe.crop_size * args.size // recipe.image_size,
    }
    changes |= {"epochs": args.epochs} if args.epochs else {}
    recipe = recipes.get(args.recipe, **changes)
    model = recipe.train(photos, args.output, args.seed, callbacks=[BankHealth(photos)], verbose=2)
    plot_log(args.output / "log.csv", args.output / "log.png")

    embeddings = model.predict(photos.ordered(), verbose=0)
    queries = np.linspace(0, len(photos) - 1, min(40, len(photos))).astype(int)
    k = min(9, len(photos) - 1)
    found = retrieve(embeddings, photos, embeddings, photos, k, queries)
    found.save_html(args.output / "neighbors.html", f"{args.folder.name}: nearest neighbors")
    for query, neighbors in found.names()[:5]:
        print(f"{query!r}: {neighbors[:3]}")
    if len(photos) >= 4:
        plot_tsne(embeddings, photos, args.output / "tsne.png", seed=args.seed)
    if args.test:
        test = ImageFolder(args.test, args.size, corrupt="skip", duplicates="keep")
        temperature = recipe.knn_temperature
        print(evaluate(model, photos, test, args.output / "report", temperature=temperature))
    print(f"written to {args.output}: neighbors.html, tsne.png, log.png, model.keras")


if __name__ == "__main__":
    main()
