"""The paper's experiments next to the stored results, in Markdown."""

import json
import math
from statistics import mean

from performance_tables import FRAMEWORKS, RESULTS, markdown, stored

# Wu et al., table 1: accuracies on CIFAR-10 of a linear SVM and of the 200 nearest neighbors.
PAPER = {
    "parametric": ("60.3", "63.0"),
    "exact": ("75.4", "80.8"),
    "nce-1": ("", "42.5"),
    "nce-10": ("", "63.4"),
    "nce-512": ("", "78.4"),
    "nce-4096": ("", "80.4"),
}
NAMES = {
    "pixels": "pixels, less their mean",
    "untrained": "untrained encoder",
    "parametric": "parametric softmax",
    "exact": "non-parametric softmax, exact",
    "nce-1": "NCE, m = 1",
    "nce-10": "NCE, m = 10",
    "nce-512": "NCE, m = 512",
    "nce-4096": "NCE, m = 4096",
}
ABLATIONS = {  # what each is, and its values with the rows that have them
    "embedding size": {d: f"embedding-{d}" for d in (32, 64)} | {128: "base", 256: "embedding-256"},
    "images to train on, %": {10: "images-10", 50: "images-50", 100: "base"},
    "momentum of the bank": {0.0: "momentum-0.0", 0.5: "base", 0.9: "momentum-0.9"},
    "views in a step, in equal time": {1: "views-1", 2: "views-2"},
    "proximal weight, NCE with m = 512": {w: f"proximal-{w}" for w in (0, 10, 30, 50)},
    "Z of NCE with m = 512": {
        "fixed after the first batch": "partition-first_batches",
        "moving average, decay 0.99": "partition-moving_average",
        "exact in every batch": "partition-exact",
    },
}


def rows_of(experiment, backend="torch"):
    """The stored results of an experiment: for each row a list with one dict per seed."""
    found = {}
    for path in sorted((RESULTS / f"{experiment}-small-{backend}-cpu").glob("*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["row"], []).append(result)
    return found


def accuracy(results, key):
    """The mean over the seeds in percent, with the values where there are several."""
    values = [100 * result["accuracies"][key] for result in results]
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def table1():
    """The small Table 1 next to the paper's."""
    found = rows_of("table1")
    pixels = 100 * found["exact"][0]["pixels"]["knn"]
    rows = [(NAMES["pixels"], "", "", "", f"{pixels:.1f}", "", "")]
    for row, name in NAMES.items():
        if row in found:
            measured = (accuracy(found[row], key) for key in ("svm", "knn", "knn_bank"))
            minutes = f"{mean(r['training_seconds'] for r in found[row]) / 60:.1f}"
            rows.append((name, *PAPER.get(row, ("", "")), *measured, minutes))
    header = (
        "",
        "paper: SVM",
        "paper: kNN",
        "here, small: SVM",
        "here, small: kNN",
        "kNN, bank rows",
        "minutes",
    )
    return f"{markdown(header, rows)}\n\n{_how(found['exact'])}"


def frameworks():
    """The exact row on each framework."""
    rows = []
    for backend, framework in FRAMEWORKS.items():
        found = rows_of("table1", backend)
        results = found.get("exact") or found.get("exact-short")
        if results:
            minutes = f"{mean(r['training_seconds'] for r in results) / 60:.1f}"
            seeds = ", ".join(str(r["seed"]) for r in results)
            epochs = results[0]["recipe"]["epochs"]
            rows.append((framework, epochs, seeds, accuracy(results, "knn"), minutes))
    return markdown(("framework", "epochs", "seeds", "kNN", "minutes"), rows)


def ablations():
    """One setting at a time."""
    found = rows_of("ablations")
    rows = []
    for what, values in ABLATIONS.items():
        for value, name in values.items():
            if name in found:
                measured = (accuracy(found[name], key) for key in ("svm", "knn"))
                rows.append((what, value, *measured))
    if not rows:
        return "Not yet."
    how = _how(found["base"])
    return f"{markdown(('setting', 'value', 'SVM', 'kNN'), rows)}\n\n{how}"


def loader():
    """The loader's rate and memory."""
    rows, sentences = [], []
    for framework, result in stored("loader").items():
        settings = result["settings"]
        if "decoding" in result:
            rates = result["decoding"]["images_per_second"]
            sentences.append(
                f"\n\nDecoding alone, images per second of one core: {rates['decode']:.0f} with "
                f"the extra fast-images, {rates['Pillow alone']:.0f} by Pillow alone. No pixel "
                f"differs by more than {result['decoding']['largest_difference']} of 255 levels."
            )
        grown = result["resident_bytes_at_the_end"] - result["resident_bytes_after_a_tenth"]
        rows.append(
            (
                framework,
                f"{settings['names']:,}",
                f"{result['listing_seconds']:.0f}",
                f"{result['checking_seconds']:.0f}",
                f"{settings['read']:,}",
                f"{result['images_per_second_and_worker']:.0f}",
                f"{grown / 2**20:.1f}",
            )
        )
    header = (
        "process of",
        "files",
        "listed and hashed, s",
        "checked again, s",
        "images read",
        "images/s per core",
        "memory grew, MiB",
    )
    return markdown(header, rows) + "".join(sentences)


def _how(results):
    """How these results were obtained."""
    first = results[0]
    recipe, images, machine = first["recipe"], first["images"], first["machine"]
    versions = machine["versions"]
    seeds = ", ".join(str(r["seed"]) for r in results)
    over = f"the mean over seeds {seeds} (and each)" if len(results) > 1 else f"seed {seeds}"
    return (
        f"Small version: {images['train']:,} training and {images['test']:,} test images of "
        f"CIFAR-10 ({first['data']}), recipe `{recipe['name']}` for {recipe['epochs']} epochs, "
        f"PyTorch {versions['torch']}, Keras {versions['keras']}, one processor core per run, two "
        f"runs at a time. Accuracies in percent, {over}. kNN: k = {recipe['num_neighbors']}; "
        "neighbors are training images embedded again without augmentation, or the bank's rows. "
        "The SVM's strength is chosen on a fifth of the training images."
    )


def plot_experiments(path):
    """Draw the small Table 1 and the ablations as PNG: dots are results, bars their means."""
    from matplotlib.figure import Figure

    found, ablated = rows_of("table1"), rows_of("ablations")
    panels = {"Table 1, small version": [(NAMES[r], found[r]) for r in NAMES if r in found]}
    for what, values in ABLATIONS.items():
        pairs = [(str(value), ablated[row]) for value, row in values.items() if row in ablated]
        if pairs:
            panels[what] = pairs
    down = math.ceil(len(panels) / 2)
    figure = Figure((12, 2.7 * down), layout="constrained")
    axes = figure.subplots(down, 2, squeeze=False).ravel()
    for axis, (title, rows) in zip(axes, panels.items(), strict=False):
        for place, (_, results) in enumerate(rows):
            values = [100 * result["accuracies"]["knn"] for result in results]
            axis.barh(place, mean(values), color="#0173B2", alpha=0.5)
            axis.plot(values, [place] * len(values), "o", color="#0173B2", markersize=4)
            pixels = 100 * results[0]["pixels"]["knn"]
            axis.vlines(pixels, place - 0.5, place + 0.5, color="0.3", linestyle=":")
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.invert_yaxis()
        axis.set(title=title, xlabel="kNN accuracy, % (dotted: pixels)", xlim=(0, None))
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=100, facecolor="white")
