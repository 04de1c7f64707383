"""Altered copies planted among photos: how many are found, and how much else is.

    KERAS_BACKEND=torch python -m benchmarks.near_duplicates \
        --choose cifar10/train --report signs=sign-digits food=food

Every set is a folder of photos, without those of equal bytes. For each alteration some photos, of
which no other copy is made, get an altered copy, a JPEG file next to them. As a user would, a
recipe is trained on all of it, copies among the rest; then each method says which pairs are nearly
the same. Each method's threshold is the one with the best F1 on the set of ``--choose``, whose
photos are in none of the others.
"""

import io
import json
import math
import time
from collections import Counter
from pathlib import Path

import imagehash
import keras
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from benchmarks import harness
from instdisc_core import recipes
from instdisc_core.data import ImageArray, ImageFolder, decode
from instdisc_core.evaluation import unit, whitened
from instdisc_core.index import DEFAULT_THRESHOLD, ImageIndex

SIZE = 32  # side in pixels of the images that are embedded
RECIPE = "small-cifar10"
WHITENED, DEFAULT = "whitened features", "whitened features, default threshold"
LEARNED = "learned embedding"
STAGE, UNTRAINED, PIXELS = "learned encoder, conv4", "untrained encoder", "raw pixels"
COSINE, PIXELS_COSINE = "whitened features, cosine alone", "raw pixels, cosine alone"
HASH, BITS = "perceptual hash", 64
LARGEST_HASH = 0.3  # share of different bits
NEIGHBORS = 16  # of each image, whose cosines are looked at


def brightened(image, rng):
    """1.4 times as bright."""
    return ImageEnhance.Brightness(image).enhance(1.4)


def mirrored(image, rng):
    """Left and right exchanged."""
    return ImageOps.mirror(image)


def resized(image, rng):
    """60 % of the width and of the height."""
    return image.resize([max(8, round(0.6 * side)) for side in image.size])


def cropped(image, rng):
    """90 % of the width and of the height, at a random place."""
    sides = [round(0.9 * side) for side in image.size]
    left, top = (
        int(rng.integers(0, whole - part + 1))
        for whole, part in zip(image.size, sides, strict=True)
    )
    return image.crop((left, top, left + sides[0], top + sides[1]))


def compressed(image, rng):
    """As it is: it is saved with JPEG's quality 30."""
    return image


def rotated(image, rng):
    """Turned by 5 degrees, to the left or to the right, with black corners."""
    return image.rotate(5 * (-1) ** int(rng.integers(2)), Image.Resampling.BILINEAR)


def overlaid(image, rng):
    """White text with a black edge on the lower third."""
    image = image.copy()
    height = max(6, image.height // 6)
    font = ImageFont.load_default(height)
    place = (image.width // 20, image.height - 2 * height)
    edge = {"stroke_width": max(1, height // 12), "stroke_fill": "black"}
    ImageDraw.Draw(image).text(place, "holiday 2024", fill="white", font=font, **edge)
    return image


ALTERATIONS = (brightened, mirrored, resized, cropped, compressed, rotated, overlaid)


def plant(source, each, seed=0):
    """The photos of a folder and altered copies of some of them.

    Args:
        source: an ImageFolder.
        each: how many photos each alteration copies.
        seed: of the choice.

    Returns:
        An ImageArray; a list of the files' Pillow images; and a dict from each planted pair of
        indices to the name of its alteration.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(source), each * len(ALTERATIONS), replace=False)
    paths = [source.whole.folder / name for name in source.names]
    files = [path.read_bytes() for path in paths]
    planted = {}
    for number, i in enumerate(chosen):
        alter = ALTERATIONS[number % len(ALTERATIONS)]
        data = io.BytesIO()
        quality = 30 if alter is compressed else 90
        image = Image.open(io.BytesIO(files[i])).convert("RGB")
        alter(image, rng).save(data, "JPEG", quality=quality)
        planted[int(i), len(files)] = alter.__name__
        files.append(data.getvalue())
    images = np.stack([decode(data, (SIZE, SIZE)) for data in files])
    return ImageArray(images), [Image.open(io.BytesIO(data)) for data in files], planted


def photos(folder, count, seed=0):
    """At most ``count`` photos of a folder, none of which has the bytes of another."""
    whole = ImageFolder(folder, SIZE, "skip", "drop", verbose=False)
    chosen = np.random.default_rng(seed).permutation(len(whole))[:count]
    return whole.subset(np.sort(chosen))


def hashed_pairs(images):
    """Pairs of images with the share of bits that differ, by imagehash's phash."""
    bits = np.stack([imagehash.phash(image).hash.ravel() for image in images])
    pairs, distances = [], []
    for i in range(len(bits) - 1):
        differing = np.mean(bits[i + 1 :] != bits[i], axis=1)
        near = np.flatnonzero(differing <= LARGEST_HASH)
        pairs += [(i, i + 1 + int(j)) for j in near]
        distances += differing[near].tolist()
    return pairs, np.array(distances)


def relative_pairs(index):
    """Pairs of images with their relative distances, as ``near_duplicates`` has them."""
    found = index.near_duplicates(1)
    return list(map(tuple, found.pairs.tolist())), found.distances


def cosine_pairs(index):
    """Pairs of images with ``1 - cosine``."""
    scores, neighbors = index.neighbors(NEIGHBORS)
    first = np.repeat(np.arange(len(index)), NEIGHBORS)
    pairs = np.sort(np.stack([first, neighbors.ravel()], axis=1), axis=1)
    pairs, where = np.unique(pairs, axis=0, return_index=True)
    return list(map(tuple, pairs.tolist())), 1 - scores.ravel()[where]


def trained(source, folder, epochs, seed):
    """The recipe's model, trained on all images; from the folder where it is there already."""
    recipe = recipes.get(RECIPE, **({"epochs": epochs} if epochs is not None else {}))
    if (folder / "model.keras").exists():
        recipes.claim(folder, recipe, seed, source.manifest)
        return keras.saving.load_model(folder / "model.keras")
    return recipe.train(source, folder, seed, verbose=2)


def candidates(source, files, folder, args):
    """For each method its pairs with distances, and the seconds that they took."""
    model = trained(source, folder, args.epochs, args.seed)
    untrained = recipes.get(RECIPE).build(len(source), seed=args.seed).encoder
    maps = model.encoder.get_layer("conv4").output
    stage = keras.Model(model.encoder.input, keras.layers.Flatten()(maps))

    def of_whitened():
        return ImageIndex.from_model(whitened(model, source), source)

    def of_pixels():
        rows = source.images().reshape(len(source), -1).astype("float32")
        return ImageIndex(unit(rows - rows.mean(axis=0)), source)

    runs = {
        WHITENED: lambda: relative_pairs(of_whitened()),
        LEARNED: lambda: relative_pairs(ImageIndex.from_model(model, source)),
        STAGE: lambda: relative_pairs(ImageIndex.from_encoder(stage, source)),
        UNTRAINED: lambda: relative_pairs(ImageIndex.from_encoder(untrained, source)),
        PIXELS: lambda: relative_pairs(of_pixels()),
        COSINE: lambda: cosine_pairs(of_whitened()),
        PIXELS_COSINE: lambda: cosine_pairs(of_pixels()),
        HASH: lambda: hashed_pairs(files),
    }
    found = {}
    for name, run in runs.items():
        start = time.perf_counter()
        found[name] = (*run(), time.perf_counter() - start)
    return found


def scores(pairs, distances, planted, threshold):
    """Precision, recall and F1 at a threshold, and the recall of each alteration."""
    kept = [pair for pair, d in zip(pairs, distances, strict=True) if d <= threshold]
    right = [planted[pair] for pair in kept if pair in planted]
    whole, hit = Counter(planted.values()), Counter(right)
    return {
        "threshold": float(threshold),
        "precision": len(right) / max(1, len(kept)),
        "recall": len(right) / len(planted),
        "f1": 2 * len(right) / (len(kept) + len(planted)),
        "found": len(kept),
        "recall_by_alteration": {name: hit[name] / count for name, count in whole.items()},
    }


def best_threshold(pairs, distances, planted):
    """The distance with the largest F1, rounded up to 0.001."""
    order = np.argsort(distances, kind="stable")
    right = np.cumsum([pairs[i] in planted for i in order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + len(planted))
    rising = distances[order]
    f1[:-1][rising[1:] == rising[:-1]] = 0  # pairs of one distance are kept together
    return math.ceil(1000 * float(rising[np.argmax(f1)])) / 1000


def measure(name, folder, args, thresholds):
    """Plant copies in a set, and judge each method; thresholds that are missing are chosen."""
    source, files, planted = plant(photos(folder, args.photos, args.seed), args.each, args.seed)
    found, results = candidates(source, files, args.work / name, args), {}
    for method, (pairs, distances, seconds) in found.items():
        best = best_threshold(pairs, distances, planted)
        threshold = thresholds.setdefault(method, best)
        results[method] = scores(pairs, distances, planted, threshold)
        results[method] |= {"seconds": seconds, "best_threshold_here": best}
    results[DEFAULT] = scores(*found[WHITENED][:2], planted, DEFAULT_THRESHOLD)
    return {"photos": len(source) - len(planted), "copies": len(planted), "methods": results}


def main():
    """Choose the thresholds on one set, and report on the others."""
    parser = harness.parser(__doc__, photos=2000, each=40, seed=0)
    add = parser.add_argument
    add("--choose", required=True, help="the folder on which thresholds are chosen")
    add("--report", nargs="+", required=True, metavar="NAME=FOLDER", help="the other sets")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--work", type=Path, default="build/near-duplicates", help="where trainings are kept")
    args = parser.parse_args()
    thresholds = {}
    sets = {"chosen on": measure("chosen-on", args.choose, args, thresholds)}
    for name, folder in (item.split("=", 1) for item in args.report):
        sets[name] = measure(name, folder, args, thresholds)
    for name, one in sets.items():
        print(f"{name}: {one['photos']} photos, {one['copies']} altered copies")
        rows = [
            (method, *(f"{found[key]:.3f}" for key in ("threshold", "precision", "recall", "f1")))
            for method, found in one["methods"].items()
        ]
        harness.table(("", "threshold", "precision", "recall", "F1"), rows)
    print(json.dumps(thresholds))
    harness.write(
        "near-duplicates",
        {"recipe": RECIPE, "epochs": args.epochs, "thresholds": thresholds, "sets": sets},
    )


if __name__ == "__main__":
    main()
