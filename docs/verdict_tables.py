"""The verdict without labels next to labels, and pretrained encoders, in Markdown."""

import json
from statistics import mean

from performance_tables import RESULTS, markdown

from benchmarks.agreement import APART, agreement, features_of

ROWS = {  # of the benchmark of pretrained encoders
    "untrained": "untrained",
    "from scratch": "trained from scratch",
    "frozen": "from the file, as it is",
    "head alone": "from the file, its head trained",
    "adapted, rate 0.1": "from the file, trained at 0.1 of the learning rate",
    "adapted, rate 0.3": "from the file, trained at 0.3",
    "adapted, rate 1": "from the file, trained at 1",
}


def results_of(benchmark, key):
    """The stored results by what they are of: for each a list with one dict per seed."""
    found = {}
    for path in sorted((RESULTS / f"{benchmark}-torch-cpu").glob("*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result[key], []).append(result)
    return found


def verdict():
    """Accuracies of kNN, and what the verdict says, for each set and stage."""
    rows, counts = [], {}
    for name, results in results_of("verdict", "set").items():
        first = results[0]
        tasks = [*first["pixels"]["tasks"]]
        for features in features_of(first):
            values = [features_of(result)[features] for result in results]
            shares = [
                mean(_row(result, features)["tasks"][task] for result in results) for task in tasks
            ]
            knn, score = (mean(column) for column in zip(*values, strict=True))
            rows.append((name, features, *(f"{x:.3f}" for x in (knn, *shares, score))))
        counts[name] = [
            sum(c) for c in zip(*(agreement(features_of(r)) for r in results), strict=True)
        ]
    header = ("set", "features", "kNN", *tasks, "verdict")
    pairs = "; ".join(f"{name} {same} of {all_}" for name, (same, all_) in counts.items())
    seeds = ", ".join(str(result["seed"]) for result in results)
    sentence = (
        f"Pairs of features that the verdict ranks as kNN does, of those whose accuracies differ "
        f"by at least {APART:.0%}: {pairs}. Seeds {seeds}; the table has their means."
    )
    return f"{markdown(header, rows)}\n\n{sentence}"


def _row(result, features):
    """The accuracies and tasks of these features."""
    if features == "pixels":
        return result["pixels"]
    return next(row for row in result["stages"] if f"{row['epochs']} epochs" == features)


TRIED = {
    ("altered", "warped"): "one of five alterations, and a warp: the verdict",
    ("altered", "halves"): "one of five alterations, and the other half",
    ("altered",): "one of five alterations",
    ("warped",): "a warp",
    ("gamma",): "darker or brighter",
    ("small",): "half the size and back",
    ("patch",): "covered by a patch",
    ("jpeg",): "JPEG of low quality",
    ("rotate",): "turned by 10 to 25 degrees",
    ("noise",): "noise",
    ("crop",): "a crop of 0.6 of the sides",
    ("mirror",): "the mirror image",
    ("halves",): "the other half",
    ("corners",): "the opposite corner",
}


def tasks():
    """How many pairs of features each task that was tried ranks as labels do."""
    sets = json.loads((RESULTS / "verdict-tasks.json").read_text())["sets"]
    rows = []
    for names, what in TRIED.items():
        of_sets = [
            {
                name: (row["knn"], mean(row["tasks"][task] for task in names))
                for name, row in features.items()
            }
            for features in sets.values()
        ]
        counts = [agreement(values) for values in of_sets]
        with_pixels = [
            agreement({"pixels": values["pixels"], name: values[name]})
            for values in of_sets
            for name in values
            if name != "pixels"
        ]
        sums = [[sum(column) for column in zip(*c, strict=True)] for c in (counts, with_pixels)]
        cells = [*counts, *sums]
        rows.append((what, *(f"{same} of {pairs}" for same, pairs in cells)))
    return markdown(("", *sets, "all", "of these, pairs with pixels"), rows)


def pretrained():
    """What starting from a file of weights is worth."""
    found, rows = results_of("pretrained", "row"), []
    pixels = next(iter(found.values()))[0]["features"]["pixels"]
    rows.append(("pixels", "", f"{pixels['kNN']:.3f}", ""))
    for row, name in ROWS.items():
        if row in found:
            features = [result["features"] for result in found[row]]
            cells = (("encoder", "kNN"), ("embedding", "kNN"), ("embedding", "linear, svm"))
            values = [mean(one[kind][measure] for one in features) for kind, measure in cells]
            rows.append((name, *(f"{value:.3f}" for value in values)))
    header = ("", "kNN, encoder's features", "kNN, embedding", "SVM, embedding")
    one = found["from scratch"][0]
    images, epochs = one["images"], one["recipe"]["epochs"]
    seeds = ", ".join(str(result["seed"]) for result in found["from scratch"])
    how = (
        f"{images['train']:,} training and {images['test']} test images of sign-digits, of "
        f"{one['recipe']['image_size']} pixels, {epochs} epochs of `{one['recipe']['name']}`. The "
        "file is the encoder of that recipe after 25 epochs on 10,000 images of CIFAR-10 (with the "
        f"stronger color jitter of the table at the top). k = 20; seed {seeds}. Without training "
        "the embedding is the encoder's features."
    )
    return f"{markdown(header, rows)}\n\n{how}"
