"""The methods at equal training time, in Markdown and as a plot."""

import json
from statistics import mean

from experiment_tables import accuracy, rows_of
from performance_tables import RESULTS, markdown

NAMES = {
    "untrained": "untrained encoder",
    "exact": "exact softmax, crops of 24 (`small-cifar10`)",
    "for-images": "exact softmax, crops of 32 (`recipes.for_images`)",
    "two-views": "two views",
    "modern": "two views, MLP head",
    "info-nce": "InfoNCE, m = 4096",
    "nce": "NCE, m = 4096",
    "proximal": "NCE, m = 512, proximal term",
    "idfd": "IDFD",
    "nnclr": "NNCLR",
    "nnclr-control": "NNCLR without neighbors",
    "pic": "PIC",
}
MEASURES = {
    "knn": "kNN",
    "knn_encoder": "kNN, encoder",
    "knn_whitened": "kNN, whitened",
    "svm": "SVM",
    "clustering": "k-means",
    "nmi": "NMI",
}
DATA = {
    "JPEG copy": "CIFAR-10 (JPEG copy)",
    "keras.datasets": "CIFAR-10",
    "scikit-learn": "scikit-learn's digits, enlarged to 32 pixels",
}
_STATE = " State: the variables of the network, its rows and its optimizer."
STYLES = ("-", "--", ":", "-.")


def methods():
    """Accuracies on CIFAR-10 of each method after the same time, with what a step costs."""
    table = _table(rows_of("methods"), ("step, ms", "state, MB", "epochs"))
    return f"{table}\n\n{_shorter()}"


def methods_on_digits():
    """Accuracies on digits, by the seconds of a step on CIFAR-10."""
    return _table(rows_of("methods-digits"), ("epochs",))


def _table(found, shown):
    """The methods in rows, with these costs of each and all measures."""
    if not found:
        return "Not yet."
    costs = _costs()
    first = next(iter(found.values()))[0]
    pixels = f"{100 * first['pixels']['knn']:.1f}"
    none = [""] * len(shown)
    rows = [("pixels, less their mean", "", *none, pixels, *[""] * (len(MEASURES) - 1))]
    for row, name in NAMES.items():
        if row in found:
            cost = none
            if row in costs["seconds"]:
                every = {
                    "step, ms": f"{1000 * costs['seconds'][row]['median']:.0f}",
                    "state, MB": f"{costs['bytes'][row] / 1e6:.1f}",
                    "epochs": found[row][0]["recipe"]["epochs"],
                }
                cost = [every[name] for name in shown]
            seeds = ", ".join(str(result["seed"]) for result in found[row])
            rows.append((name, seeds, *cost, *(accuracy(found[row], key) for key in MEASURES)))
    header = ("", "seeds", *shown, *MEASURES.values())
    return (
        f"{markdown(header, rows)}\n\n{_how(found, costs)}{_STATE if 'state, MB' in shown else ''}"
    )


def _shorter():
    """What the exact softmax learns with larger crops in fewer epochs."""
    found, costs = rows_of("shorter").get("for-images"), _costs()
    if not found:
        return ""
    recipe = found[0]["recipe"]
    minutes = _minutes(found[0], costs)
    seeds = " and ".join(str(result["seed"]) for result in found)
    return (
        f"With `--rows for-images --minutes-each {minutes:.1f}`, by the same seconds of a step, "
        f"the exact softmax with crops of {recipe['crop_size']} reaches in {recipe['epochs']} "
        f"epochs {accuracy(found, 'knn')}, and {accuracy(found, 'knn_whitened')} whitened "
        f"(seeds {seeds})."
    )


def pixels_beaten():
    """The sentence of the README."""
    found = rows_of("methods")
    exact, larger = (
        mean(one["accuracies"]["knn"] for one in found[row]) for row in ("exact", "for-images")
    )
    first = found["exact"][0]
    images = first["images"]
    return (
        f"On {images['train']:,} images of CIFAR-10 (JPEG copy), in as many epochs as take "
        f"{_minutes(first, _costs()):.0f} minutes on one processor core, the 200 nearest neighbors "
        f"classify {exact:.1%} of {images['test']:,} test images correctly; with the larger crops "
        f"that `recipes.for_images` chooses, in fewer epochs, {larger:.1%}; with raw pixels "
        f"{first['pixels']['knn']:.1%}."
    )


def _minutes(result, costs):
    """The minutes of a training, by the seconds of a step of its method."""
    steps = -(-result["images"]["train"] // result["recipe"]["batch_size"])
    return result["recipe"]["epochs"] * steps * costs["seconds"][result["row"]]["median"] / 60


def _how(found, costs):
    """How these results were obtained."""
    first = found["exact"][0]
    recipe, images, machine = first["recipe"], first["images"], costs["machine"]
    minutes = _minutes(first, costs)
    return (
        f"{images['train']:,} training and {images['test']:,} test images of "
        f"{DATA[first['data']]}, PyTorch {machine['versions']['torch']} on an "
        f"{machine['processor']}. Each method trains for the epochs that take {minutes:.1f} "
        "minutes on one core, by the seconds of a step, which were measured in turn in one run. "
        "Values in percent, the mean of the seeds (and each). "
        f"kNN: k = {recipe['num_neighbors']} training images, embedded again without augmentation. "
        "SVM, k-means and NMI are of the embedding, clusters of the test images."
        + _in_float32(found)
    )


def _in_float32(found):
    """The sentence that names the trainings in float32; all others are in bfloat16."""
    named = [
        f"{NAMES[row]} (seed {result['seed']})"
        for row, results in found.items()
        for result in results
        if result["recipe"]["epochs"] and result["recipe"]["dtype_policy"] == "float32"
    ]
    return (
        " Networks compute in bfloat16; in float32, on a processor without it, and for as many "
        f"epochs: {', '.join(named)}."
        if named
        else ""
    )


def plot_methods(path):
    """Draw the accuracy of each method over the minutes of training as PNG; means of the seeds."""
    from matplotlib.figure import Figure

    found, costs = rows_of("methods"), _costs()["seconds"]
    if not found:
        return
    figure = Figure((10, 5.5), layout="constrained")
    axis = figure.subplots()
    ends = []
    for place, row in enumerate(name for name in NAMES if name in found and name in costs):
        results = found[row]
        recipe, images = results[0]["recipe"], results[0]["images"]["train"]
        steps = images / recipe["batch_size"] * costs[row]["median"] / 60
        minutes = [steps * epoch for epoch, _ in results[0]["course"]]
        points = zip(*(result["course"] for result in results), strict=True)
        values = [100 * mean(value for _, value in point) for point in points]
        style = {"color": f"C{place % 10}", "linestyle": STYLES[place // 10]}
        axis.plot(minutes, values, marker="o", markersize=3, **style)
        ends.append((values[-1], minutes[-1], NAMES[row].replace("`", ""), style["color"]))
    pixels = 100 * next(iter(found.values()))[0]["pixels"]["knn"]
    axis.axhline(pixels, color="0.3", linestyle=":")
    axis.annotate("pixels", (0, pixels), xytext=(2, 3), textcoords="offset points", color="0.3")
    last = -float("inf")
    for value, minute, name, color in sorted(ends):
        last = max(value, last + 0.75)  # labels do not cover each other
        axis.annotate(
            name, (minute, value), xytext=(axis.get_xlim()[1] + 0.1, last), color=color, va="center"
        )
    axis.set(
        title="Accuracy of 200 neighbors over training time, one core",
        xlabel="minutes of training",
        ylabel="kNN accuracy of the embedding, %",
        xlim=(0, None),
    )
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100, facecolor="white")


def _costs():
    """The stored seconds of a step and bytes of each method."""
    return json.loads((RESULTS / "methods-costs-torch-cpu.json").read_text())
