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
    "for-images-mirrored": "the same, mirrored",
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
    found = {}
    for result in _results("folders"):
        for kind, measured in result["scores"].items():
            place = found.setdefault(result["set"], {}).setdefault((result["row"], kind), [])
            place.append((result, measured["knn"]))
    rows = []
    for name, by_row in found.items():
        if all(column in by_row for column in columns):
            first = by_row[columns[0]][0][0]
            about = f"{name}: {first['images']['train']:,} images, {first['classes']} classes"
            values = [mean(knn for _, knn in by_row[column]) for column in columns]
            rows.append((about, *(f"{value:.3f}" for value in values)))
    names = ("raw pixels", "HOG", "untrained encoder", "trained", "trained, whitened")
    return markdown(("", *names), rows)


def folders():
    """Collections of images at equal time: kNN of each row, and what is best of each measure."""
    found = {}
    for result in _results("folders"):
        for kind, measured in result["scores"].items():
            name = FOLDER_ROWS.get(result["row"], f"`{result['row']}`")
            name += FOLDER_FEATURES[kind] if len(result["scores"]) > 1 else ""
            found.setdefault(result["set"], {}).setdefault(name, []).append((result, measured))
    if not found:
        return "Not yet."
    rows, chosen = [], []
    order = [*FOLDER_ROWS.values()]
    for name, by_row in found.items():
        for row, results in sorted(by_row.items(), key=lambda x: order.index(x[0].split(": ")[0])):
            first = results[0][0]
            values = [
                f"{100 * mean(measured[key] for _, measured in results):.1f}"
                for key in FOLDER_MEASURES
            ]
            each = ", ".join(f"{100 * measured['knn']:.1f}" for _, measured in results)
            values[0] += f" ({each})" if len(results) > 1 else ""
            about = f"{first['images']['train']:,} in {first['classes']} classes"
            rows.append((f"{name}: {about}", row, *values))
            if row == FOLDER_ROWS["for-images"] + FOLDER_FEATURES["embedding"]:
                recipe, machine, minutes = (first[k] for k in ("recipe", "machine", "minutes"))
                size, crop = recipe["image_size"], recipe["crop_size"]
                chosen.append(f"{name} {recipe['epochs']} epochs, {size} pixels, crops of {crop}")
    how = (
        f"In percent. A training has as many epochs as fit into {minutes:g} minutes on "
        f"two cores that do nothing else, measured before: {'; '.join(chosen)}. "
        f"{machine['processor']}, {machine['date']}. {_agreement()}"
    )
    return f"{markdown(('images', 'rows', *FOLDER_MEASURES.values()), rows)}\n\n{how}"


def _agreement():
    """How the verdicts without labels rank pixels, the untrained and the trained encoder."""
    results = {(r["set"], r["row"], r["seed"]): r for r in _results("folders")}
    counts = []
    for (name, row, seed), result in results.items():
        rows = {"pixels": (name, "pixels", 0), "untrained encoder": (name, "untrained", seed)}
        if row == "for-images" and all(key in results for key in rows.values()):
            rows["embedding"] = (name, row, seed)
            knn = {k: results[key]["scores"]["embedding"]["knn"] for k, key in rows.items()}
            scores = {k: mean(tasks.values()) for k, tasks in result["verdict"].items()}
            counts.append(agreement({k: (knn[k], scores[k]) for k in rows}))
    same, pairs = map(sum, zip(*counts, strict=True))
    return (
        f"The verdict without labels ranks {same} of {pairs} pairs of pixels, untrained and "
        "trained embedding as kNN does."
    )


def handedness():
    """How many images are told from their mirror images."""
    found = json.loads((RESULTS / "handedness-torch-cpu.json").read_text())["sets"]
    shares = {"told": "told from their mirror images", "told_of_bursts": "of bursts"}
    rows = [
        (name, one["images"], *(f"{one[share]:.0%}" for share in shares))
        for name, one in found.items()
    ]
    return markdown(("images of", "looked at", *shares.values()), rows)


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
