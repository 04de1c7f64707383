"""Collections of images at equal time, the sweep of sizes, and few labels, in Markdown."""

import json
from statistics import mean

from performance_tables import RESULTS, markdown

from benchmarks.agreement import agreement

FOLDER_ROWS = {
    "pixels": "pixels, less their mean",
    "whitened": "pixels, whitened",
    "hog": "HOG",
    "untrained": "untrained encoder",
    "for-images": "`recipes.for_images`",
    "for-images-mirrored": "`recipes.for_images`, mirrored",
    "for-images-recolored": "`recipes.for_images`, recolored",
    "lightly-simclr": "lightly, SimCLR",
    "lightly-nnclr": "lightly, NNCLR",
}
FOLDER_FEATURES = {
    "embedding": ": embedding",
    "encoder": ": encoder's features",
    "whitened": ": encoder's features, whitened",
}
FOLDER_MEASURES = {
    "knn": "kNN",
    "one_label": "one label per class",
    "svm": "SVM",
    "clustering": "k-means",
    "nmi": "NMI",
}
SWEEP = {  # side of the images, side of the crops, and what is unlike `small-cifar10`
    "default": (32, 24, "`small-cifar10`"),
    "i32c32": (32, 32, ""),
    "i48c36": (48, 36, ""),
    "i64c48": (64, 48, ""),
    "scale35": (32, 24, "crops of at least 0.35 of the area instead of 0.2"),
    "views2": (32, 24, "two views"),
    "simclr": (32, 24, "SimCLR's loss on two views"),
    "width64": (32, 24, "twice the width"),
    "untrained": (32, 24, "untrained"),
}


def summary():
    """The table of the README: kNN of what needs no training, and of ten minutes of it."""
    columns = (
        ("pixels", "embedding"),
        ("hog", "embedding"),
        ("untrained", "whitened"),
        ("for-images", "embedding"),
        ("for-images", "whitened"),
    )
    rows, processors = {}, {}
    for processor, results in _by_processor().items():
        found = {}
        for result in results:
            for kind, measured in result["scores"].items():
                place = found.setdefault(result["set"], {}).setdefault((result["row"], kind), [])
                place.append((result, measured["knn"]))
        for name, by_row in found.items():
            if name not in rows and all(column in by_row for column in columns):
                first = by_row[columns[0]][0][0]
                about = f"{name}: {first['images']['train']:,} images, {first['classes']} classes"
                values = [mean(knn for _, knn in by_row[column]) for column in columns]
                rows[name] = about, *(f"{value:.3f}" for value in values)
                processors.setdefault(processor, []).append(name)
    names = ("raw pixels", "HOG", "untrained encoder", "trained", "trained, whitened")
    where = "; ".join(f"{', '.join(sorted(sets))} on {on}" for on, sets in processors.items())
    return f"{markdown(('', *names), [rows[name] for name in sorted(rows)])}\n\nMeasured: {where}."


def folders():
    """Collections of images at equal time, a table for each processor."""
    return _tables(of_rivals=False)


def rivals():
    """The same of the collections on which lightly's methods ran as well."""
    return _tables(of_rivals=True)


def _tables(of_rivals):
    """A table of each processor's results on the collections with, or without, lightly's rows."""
    tables = []
    for results in _by_processor().values():
        seen = {r["set"] for r in results if r["row"].startswith("lightly")}
        if chosen := [r for r in results if (r["set"] in seen) == of_rivals]:
            tables.append(_table(chosen))
    return "\n\n".join(tables) or "Not yet."


def _by_processor():
    """The stored results of each processor, the one of most results first."""
    found = {}
    for result in _results("folders"):
        found.setdefault(result["machine"]["processor"], []).append(result)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def _table(results):
    """All measures of each row, and how long its training is."""
    found = {}
    for result in results:
        for kind, measured in result["scores"].items():
            name = FOLDER_ROWS.get(result["row"], f"`{result['row']}`")
            name += FOLDER_FEATURES[kind] if len(result["scores"]) > 1 else ""
            found.setdefault(result["set"], {}).setdefault(name, []).append((result, measured))
    rows, chosen = [], []
    order = [*FOLDER_ROWS.values()]
    for name, by_row in found.items():
        for row, seeds in sorted(by_row.items(), key=lambda x: order.index(x[0].split(": ")[0])):
            first = seeds[0][0]
            values = [
                f"{100 * mean(measured[key] for _, measured in seeds):.1f}"
                for key in FOLDER_MEASURES
            ]
            each = ", ".join(f"{100 * measured['knn']:.1f}" for _, measured in seeds)
            values[0] += f" ({each})" if len(seeds) > 1 else ""
            about = f"{first['images']['train']:,} in {first['classes']} classes"
            rows.append((f"{name}: {about}", row, *values))
            if row.endswith(FOLDER_FEATURES["embedding"]) and first["row"] != "untrained":
                machine, minutes = first["machine"], first["minutes"]
                what = name if "recipe" in first else f"{name}, {FOLDER_ROWS[first['row']]}"
                chosen.append(f"{what}: {_length(first)}")
    how = (
        f"In percent. A training has as many epochs as fit into {minutes:g} minutes on "
        f"two cores that do nothing else, measured before: {'; '.join(dict.fromkeys(chosen))}. "
        f"{machine['processor']}, {machine['date']}. {_agreement(results)}"
    )
    return f"{markdown(('images', 'rows', *FOLDER_MEASURES.values()), rows)}\n\n{how}"


def _length(result):
    """The epochs of a training, and the sizes of a recipe."""
    if "recipe" not in result:
        return f"{result['epochs']} epochs"
    recipe = result["recipe"]
    size, crop = recipe["image_size"], recipe["crop_size"]
    return f"{recipe['epochs']} epochs of {size} pixels in crops of {crop}"


def _agreement(results):
    """How the verdicts without labels rank pixels, the untrained and the trained encoder."""
    results = {(r["set"], r["row"], r["seed"]): r for r in results}
    pixels = {name: r for (name, row, _), r in results.items() if row == "pixels"}
    counts = []
    for (name, row, seed), result in results.items():
        untrained = results.get((name, "untrained", seed))
        if "verdict" in result and row != "untrained" and untrained and name in pixels:
            rows = {"pixels": pixels[name], "untrained encoder": untrained, "embedding": result}
            knn = {k: one["scores"]["embedding"]["knn"] for k, one in rows.items()}
            scores = {k: mean(tasks.values()) for k, tasks in result["verdict"].items()}
            counts.append(agreement({k: (knn[k], scores[k]) for k in rows}))
    same, pairs = map(sum, zip(*counts, strict=True))
    return (
        f"The verdict without labels ranks {same} of {pairs} pairs of pixels, untrained and "
        "trained embedding as kNN does."
    )


def handedness():
    """How many images are told from their mirror images."""
    return _glance("sides", "{:.0%}".format)


def colors():
    """Whether images of like colors have like shapes."""
    return _glance("colors", "{:.2g}".format)


def _glance(kind, text):
    """What `benchmarks.glance` measured of each collection."""
    found = json.loads((RESULTS / "glance-torch-cpu.json").read_text())["sets"]
    rows = [
        (name, one["images"], *(text(value) for value in one[kind].values()))
        for name, one in found.items()
    ]
    return markdown(("images of", "looked at", *next(iter(found.values()))[kind]), rows)


def sizes():
    """Sizes of images and crops, and some other changes, at equal time."""
    found = json.loads((RESULTS / "sizes-torch-cuda.json").read_text())
    measured = {(one["job"], one["set"]): one for one in found["trainings"]}
    pixels = found["pixels_and_hog"]
    rows = []
    for job, (image, crop, what) in SWEEP.items():
        cells = []
        for name in pixels:
            knn = measured[job, name]["knn"]
            cell = f"{100 * knn['enc']:.1f}, {100 * knn['w50']:.1f}"
            cells.append(cell + (f" ({100 * knn[f'enc@{crop}']:.1f})" if crop < image else ""))
        rows.append((f"{image}, {crop}", what, f"{measured[job, name]['steps']:,}", *cells))
    rows.append(("32", "pixels", "", *(f"{100 * one['pixels']:.1f}" for one in pixels.values())))
    machine = found["machine"]
    return (
        f"{markdown(('image, crop', '', 'steps', *pixels), rows)}\n\nEach cell: kNN in percent of "
        "the encoder's features, of the same whitened, and in parentheses of the features of "
        "images that are embedded at the size of the crops. On a fifth of the training images that "
        f"was held out. {machine['device']}, {machine['date']}: {found['what']}."
    )


def few_labels():
    """Accuracies after fine-tuning with a part of the labels, from each start."""
    found = {}
    for result in _results("few-labels"):
        key = result["set"], result["start"], result["learning_rate"]
        found.setdefault(key, []).append(result)
    if not found:
        return "Not yet."
    first = next(iter(found.values()))[0]
    shares = list(first["accuracies"])
    rows = [
        (
            name,
            start,
            rate,
            *(f"{100 * mean(r['accuracies'][s] for r in results):.1f}" for s in shares),
        )
        for (name, start, rate), results in found.items()
    ]
    seeds = ", ".join(str(seed) for seed in sorted({r["seed"] for r in _results("few-labels")}))
    header = ("images", "start", "learning rate", *(f"{float(share):.0%}" for share in shares))
    how = f"Accuracies in percent after {first['steps']} steps, seed {seeds}."
    return f"{markdown(header, rows)}\n\n{how}"


def clusters():
    """Clusters by means and by neighbors, of each collection's held-out images."""
    path = RESULTS / "clusters-torch-cpu.json"
    if not path.exists():
        return "Not yet."
    rows = []
    for name, result in json.loads(path.read_text())["sets"].items():
        about = f"{name}: {result['images']:,} in {result['classes']}"
        for kind, ways in result["scores"].items():
            values = [
                f"{100 * ways[way][measure]:.1f}"
                for measure in ("accuracy", "nmi")
                for way in ("means", "neighbors")
            ]
            rows.append((about, kind, *values))
    header = ("images", "features", "accuracy, means", "by neighbors", "NMI, means", "by neighbors")
    return f"{markdown(header, rows)}\n\nIn percent, one training of each."


def _results(benchmark):
    """The stored results of a benchmark on PyTorch."""
    paths = sorted((RESULTS / f"{benchmark}-torch-cpu").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]
